"""The compiled kernels by themselves: sums to the last bit, factors, attention, which variant."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.hadamard import Rotation
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu import kernel_check, kernels
from runtime.backends.cpu.attention import attend, attention_kernels
from runtime.backends.cpu.code_order import (
    LARGEST_HALF_BYTE,
    from_kernel_order,
    in_kernel_order,
)
from runtime.backends.cpu.kernels import (
    SWITCH,
    VARIANTS,
    WITHOUT,
    Choice,
    Kernels,
    load_variant,
    native_kernels,
)
from runtime.backends.cpu.native_linear import NativeLinear
from runtime.backends.cpu.packed_weight import Codes, PackedWeight
from runtime.backends.reference import integer_product
from runtime.images.image_io import read_image
from runtime.loader import load_pipeline
from runtime.upscale import encode_image, sample_latent
from schemas.errors import UsageError
from tests.artifacts.make_pack import random_weight

RUNNING = [one for one in map(load_variant, VARIANTS) if isinstance(one, Kernels)]
every_variant = pytest.mark.parametrize("native", RUNNING, ids=[one.variant for one in RUNNING])

# Scores are sums of 64 products, weights come from an exponential good to 2e-7: 100 dB and more.
ATTENTION_DB = 100
# Of bfloat16, whose results have 8 bits.
BFLOAT16_DB = 50
MULTIPLIES_BFLOAT16 = "avx512_bf16"


def snr_db(actual, reference):
    noise = (actual.double() - reference.double()).norm()
    return float(20 * torch.log10(reference.double().norm() / noise))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_weight(codes, bits):
    """A weight without rotation and factors, all scales 1."""
    rows, columns = codes.shape
    return QuantizedWeight(
        *("layer", rows, columns, bits, pack_codes(codes, bits), torch.ones(rows)),
        rotation=Rotation.identity(columns),
    )


def doubled_products(native, codes, bits, weight, weight_bits):
    packed = PackedWeight(plain_weight(weight, weight_bits), native)
    return packed.apply(Codes(codes, torch.ones(len(codes)), bits), None, torch.int32)


def ordered_reference(codes, bits, panel):
    """Codes uint8 [channels, inputs] as `in_kernel_order` has them, and their sums."""
    middle = 2 ** (bits - 1)
    missing = (0, -codes.shape[1] % 4, 0, -codes.shape[0] % panel)
    filled = F.pad(codes.int(), missing, value=middle)
    by_quad = filled.view(-1, panel, filled.shape[1] // 4, 4).transpose(1, 2)
    sums = (filled - middle).sum(1, dtype=torch.int32)
    if bits > LARGEST_HALF_BYTE:
        return (by_quad - middle).to(torch.int8), sums
    low, high = by_quad.chunk(2, dim=2)
    return (low | high << 4).to(torch.uint8), sums


@every_variant
@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(1, 8),
    inputs=st.integers(1, 150),
    channels=st.integers(1, 70),
    seed=st.integers(0, 2**16),
)
def test_codes_come_into_the_kernels_order(native, bits, inputs, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (channels, inputs), generator=generator).to(torch.uint8)
    ordered, sums = in_kernel_order(pack_codes(codes, bits), bits, channels, inputs, native)
    wanted, wanted_sums = ordered_reference(codes, bits, native.panel)
    assert torch.equal(ordered, wanted)
    assert torch.equal(sums, wanted_sums)
    back = from_kernel_order(ordered, bits)[:channels, :inputs]
    assert torch.equal(back.int() + 2 ** (bits - 1), codes.int())


@every_variant
@settings(deadline=None, max_examples=150)
@given(
    a_bits=st.integers(1, 8),
    w_bits=st.integers(1, 8),
    tokens=st.integers(1, 140),
    inner=st.integers(1, 1100),
    outer=st.integers(1, 70),
    seed=st.integers(0, 2**16),
)
def test_integer_sums_are_the_references(native, a_bits, w_bits, tokens, inner, outer, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(2**a_bits, (tokens, inner), generator=generator).to(torch.uint8)
    w = torch.randint(2**w_bits, (outer, inner), generator=generator).to(torch.uint8)
    a[0], w[0], w[-1] = 2**a_bits - 1, 2**w_bits - 1, 0  # saturated rows: the largest sums
    expected = integer_product(a, a_bits, w, w_bits).double()
    assert torch.equal(doubled_products(native, a, a_bits, w, w_bits).double(), expected)


@every_variant
@pytest.mark.parametrize("a_bits", range(1, 9))
@pytest.mark.parametrize("w_bits", range(1, 9))
@pytest.mark.parametrize("level", ["lowest", "highest"])
def test_the_worst_sums_of_the_widest_layer_do_not_saturate(native, a_bits, w_bits, level):
    code = 0 if level == "lowest" else 2**w_bits - 1
    a = torch.full((17, 6144), 2**a_bits - 1, dtype=torch.uint8)
    w = torch.full((33, 6144), code, dtype=torch.uint8)
    worst = 6144 * (2**a_bits - 1) * (2 * code - (2**w_bits - 1))
    assert doubled_products(native, a, a_bits, w, w_bits).unique().tolist() == [worst]


@every_variant
def test_more_inputs_than_32_bits_hold_are_refused(native):
    with pytest.raises(ValueError, match="32-bit sums hold"):
        PackedWeight(plain_weight(torch.zeros(1, 40_000, dtype=torch.uint8), 4), native)


@every_variant
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_packed_order_can_be_undone(native, bits):
    codes = torch.randint(2**bits, (37, 33), generator=torch.Generator().manual_seed(bits))
    packed = PackedWeight(plain_weight(codes.to(torch.uint8), bits), native)
    assert torch.equal(packed.odd_integers(torch.float32), 2 * codes.float() - (2**bits - 1))


@every_variant
@pytest.mark.parametrize(
    ("shape", "rank", "block"),
    [((40, 96), 3, (8, 12)), ((48, 96), 0, (3, 96)), ((96, 48), 40, (48, 4)), ((7, 16), 1, (1, 8))],
)
def test_factors_are_a_low_rank_product(native, shape, rank, block):
    """Block rows thinner than a panel of channels, and wider; more coordinates than a panel."""
    weight = random_weight("layer", *shape, rank=rank, block=block)
    layer = NativeLinear(weight, "gaussian", native)
    factors = layer._weight.factors
    z = normal(31, shape[1])
    y = torch.zeros(31, shape[0])
    factors.add_to(y, factors.coordinates(z))
    torch.testing.assert_close(y, z @ weight.low_rank().T, rtol=1e-4, atol=1e-4)


@every_variant
def test_gelu_is_applied_in_the_same_pass(native):
    layer = NativeLinear(random_weight("layer", 40, 96), "gaussian", native)
    x = 4 * normal(9, 96)
    y = F.gelu(layer(x, 4), approximate="tanh")
    torch.testing.assert_close(layer.apply_gelu_to(layer.prepare(x, 4)), y, rtol=1e-5, atol=1e-6)
    narrow = x.bfloat16()
    rounded = layer.apply_gelu_to(layer.prepare(narrow, 4))
    assert rounded.dtype == torch.bfloat16
    expected = layer.apply_gelu_to(layer.prepare(narrow.float(), 4))
    assert torch.equal(rounded, expected.bfloat16())
    unquantized = layer.apply_gelu_to(layer.prepare(x, 16))
    torch.testing.assert_close(unquantized, F.gelu(layer(x, 16), approximate="tanh"))


@every_variant
def test_results_do_not_depend_on_the_number_of_threads(native):
    layer = NativeLinear(random_weight("layer", 200, 192), "gaussian", native)
    x, threads = normal(300, 192), torch.get_num_threads()
    q = normal(1, 2, 150, 32)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append((layer(x, 4), attend(native, q, q, q)))
    torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@every_variant
@pytest.mark.parametrize("bits", [4, 16])
def test_nobody_gets_a_result_without_its_gradient(native, bits):
    layer = NativeLinear(random_weight("layer", 8, 96), "gaussian", native)
    x = normal(2, 96).requires_grad_()
    with pytest.raises(
        RuntimeError, match="layer layer: compiled kernels cannot be differentiated"
    ):
        layer(x, bits)
    with torch.no_grad():
        layer(x, bits)


@every_variant
@pytest.mark.parametrize("sharpness", [1, 4, 30])
@pytest.mark.parametrize(
    ("queries", "keys", "size"), [(1, 1, 32), (13, 300, 64), (97, 129, 64), (7, 31, 128)]
)
def test_attention_is_attention(native, queries, keys, size, sharpness):
    q = sharpness * normal(2, 3, queries, size)
    k, v = normal(2, 3, keys, size, seed=1), normal(2, 3, keys, size, seed=2)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert snr_db(attend(native, q, k, v), expected) > ATTENTION_DB


@every_variant
@pytest.mark.parametrize("sharpness", [1, 4, 30])
@pytest.mark.parametrize(
    ("queries", "keys", "size"), [(1, 1, 32), (13, 300, 64), (97, 129, 64), (7, 31, 128)]
)
def test_attention_in_bfloat16_is_as_near_as_torchs(native, queries, keys, size, sharpness):
    q = (sharpness * normal(2, 3, queries, size)).bfloat16()
    k, v = (normal(2, 3, keys, size, seed=seed).bfloat16() for seed in (1, 2))
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    found = snr_db(attend(native, q, k, v), expected)
    assert found > BFLOAT16_DB
    assert found >= snr_db(F.scaled_dot_product_attention(q, k, v), expected) - 1


@every_variant
@pytest.mark.parametrize("gain", [1, 4])
def test_attention_on_what_a_trained_network_attends_with(native, gain, monkeypatch):
    """The bundled model's queries and keys, as they are and with logits four times larger."""
    found, in_bfloat16 = [], []

    def attention(_kernels, q, k, v):
        expected = F.scaled_dot_product_attention(gain * q.double(), k.double(), v.double())
        found.append(snr_db(attend(native, gain * q, k, v), expected))
        rounded = ((gain * q).bfloat16(), k.bfloat16(), v.bfloat16())
        of_those = F.scaled_dot_product_attention(*(x.double() for x in rounded))
        in_bfloat16.append(snr_db(attend(native, *rounded), of_those))
        return expected.float()

    monkeypatch.setattr("runtime.network.attention.attention_kernels", lambda q, k, v: native)
    monkeypatch.setattr("runtime.network.attention.attend", attention)
    pipeline = load_pipeline(
        pack=None, full_precision=Path("artifacts/demo/dit4sr-mini"), device="cpu", dtype="float32"
    )
    settings = replace(pipeline.sampling, steps=1, min_side_px=64)
    image = read_image(Path("artifacts/demo/photo.png")).rgb[..., :16, :16]
    with torch.inference_mode():
        sample_latent(pipeline, encode_image(pipeline, image, settings).control, settings)
    assert len(found) >= 9
    assert min(found) > ATTENTION_DB
    assert min(in_bfloat16) > BFLOAT16_DB


@every_variant
def test_attention_takes_any_strides_and_bfloat16(native):
    q, k, v = (normal(2, 50, 3, 64, seed=seed).transpose(1, 2) for seed in range(3))
    y = attend(native, q, k, v)
    assert y.transpose(1, 2).is_contiguous()  # heads of a token side by side
    assert torch.equal(y, attend(native, q.contiguous(), k.contiguous(), v.contiguous()))
    narrow = attend(native, q.bfloat16(), k.bfloat16(), v.bfloat16())
    wide = attend(native, *(x.bfloat16().float() for x in (q, k, v)))
    if native.variant == MULTIPLIES_BFLOAT16:
        assert snr_db(narrow, wide) > BFLOAT16_DB
    else:
        assert torch.equal(narrow, wide.bfloat16())


@every_variant
def test_what_is_not_a_number_comes_out(native):
    q = normal(1, 2, 20, 32)
    q[0, 1, 3, 5] = torch.nan
    y = attend(native, q, normal(1, 2, 40, 32), normal(1, 2, 40, 32))
    assert y.isnan().flatten(2).any(2).tolist() == [[False, True]]
    assert y.isnan().sum() == 32


def test_attention_is_left_to_torch_where_the_kernels_cannot(monkeypatch):
    fit = normal(1, 2, 5, 64)
    found = Choice(Kernels("avx2", 16, None), {})
    monkeypatch.setattr("runtime.backends.cpu.attention.native_kernels", lambda: found)
    narrow, odd, none = fit.bfloat16(), normal(1, 2, 5, 24), normal(1, 2, 0, 64)
    for q in (fit, narrow):
        assert attention_kernels(q, q, q) is found.kernels
    with_gradient, half = fit.clone().requires_grad_(), fit.half()
    for q, k in ((with_gradient, fit), (half, half), (odd, odd), (fit, none), (fit, narrow)):
        assert attention_kernels(q, k, k) is None


@pytest.fixture
def switch(monkeypatch):
    """Sets the switch, or unsets it, for a choice that is made anew."""
    kernels._chosen.cache_clear()

    def set_to(value):
        if value is None:
            monkeypatch.delenv(SWITCH, raising=False)
        else:
            monkeypatch.setenv(SWITCH, value)

    yield set_to
    kernels._chosen.cache_clear()


def test_the_switch_names_a_variant_or_none(switch):
    switch(WITHOUT)
    assert str(native_kernels()) == f"no compiled kernels: all left out by {SWITCH}=onednn"
    switch("abacus")
    with pytest.raises(UsageError, match="one of auto, avx512_bf16, avx512_vnni"):
        native_kernels()


def test_the_first_variant_that_runs_is_taken(switch, monkeypatch):
    switch(None)
    answers = {
        "avx512_bf16": "not built",
        "avx512_vnni": "not built",
        "avx_vnni": Kernels("avx_vnni", 16, None),
    }
    monkeypatch.setattr(kernels, "load_variant", answers.__getitem__)
    monkeypatch.setattr(kernels, "processor_features", dict)
    assert str(native_kernels()) == "compiled kernels avx_vnni"
    assert native_kernels().reasons == dict.fromkeys(("avx512_bf16", "avx512_vnni"), "not built")
    switch("avx512_vnni")
    with pytest.raises(UsageError, match="not built"):
        native_kernels()


def test_the_report_says_what_became_of_every_variant(switch, monkeypatch):
    switch(None)
    answers = {
        "avx512_bf16": "needs other instructions",
        "avx512_vnni": "needs other instructions",
        "avx_vnni": Kernels("avx_vnni", 16, None),
        "avx2": Kernels("avx2", 16, None),
    }
    monkeypatch.setattr(kernels, "load_variant", answers.__getitem__)
    monkeypatch.setattr(kernels, "processor_features", dict)
    assert kernels.kernel_report() == [
        "avx512_bf16: needs other instructions",
        "avx512_vnni: needs other instructions",
        "avx_vnni: in use",
        f"avx2: runs here too; {SWITCH}=avx2 takes it",
    ]
    switch(WITHOUT)
    assert kernels.kernel_report()[2] == f"avx_vnni: left out by {SWITCH}=onednn"
    monkeypatch.setattr(kernels, "load_variant", lambda variant: "not built")
    assert kernels.kernel_report()[3:] == [
        "avx2: not built",
        "install this program again with a C++17 compiler to build them",
    ]


def test_processors_with_amx_keep_onednns_products_and_prepare_inputs(switch, monkeypatch):
    switch(None)
    features = dict(kernels.processor_features())
    monkeypatch.setattr(kernels, "processor_features", lambda: features | {"amx_int8": False})
    fastest = native_kernels().kernels
    kernels._chosen.cache_clear()
    monkeypatch.setattr(kernels, "processor_features", lambda: features | {"amx_int8": True})
    choice = native_kernels()
    assert choice.kernels is None
    assert choice.preparing is fastest
    if fastest is not None:
        assert f"inputs prepared by compiled kernels {fastest.variant}" in str(choice)
        assert any("prepares inputs" in line for line in kernels.kernel_report())


def test_libraries_that_do_not_load_or_do_not_exist_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "_FOLDER", tmp_path)
    load_variant.cache_clear()
    assert load_variant("avx2") == "not built"
    load_variant.cache_clear()
    (tmp_path / "kernels_avx2.so").write_bytes(b"no library")
    assert str(load_variant("avx2")).startswith("does not load")
    load_variant.cache_clear()


@every_variant
def test_the_check_finds_a_wrong_sum(native):
    class OffByOne(Kernels):
        def gemm(self, arguments):
            super().gemm(replace_bits(arguments))

    def replace_bits(arguments):
        if (arguments.weight_bits, arguments.activation_bits) == (5, 3):
            arguments.activation_bits = 4
        return arguments

    assert kernel_check.inexact_pair(native) is None
    wrong = OffByOne(native.variant, native.panel, native.library)
    assert kernel_check.inexact_pair(wrong) == "W5A3"


@pytest.mark.parametrize("variant", [WITHOUT, *(one.variant for one in RUNNING)])
def test_every_choice_runs_one_layer_alone(variant):
    """In a process of its own, with one thread: whatever backend the choice leaves."""
    code = (
        "import torch; from runtime.backends import select_backend;"
        "from schemas.manifest import QuantizerRecord;"
        "from tests.artifacts.make_pack import random_weight;"
        "backend = select_backend('auto', torch.device('cpu'));"
        "record = QuantizerRecord(weight_scale='gaussian', activation_scale='gaussian');"
        "layer = backend.make_layer(random_weight('layer', 24, 96), record);"
        "print(layer(torch.ones(3, 96), 4).shape, type(layer).__name__)"
    )
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, SWITCH: variant, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch.Size([3, 24])" in run.stdout
    assert ("NativeLinear" in run.stdout) == (variant != WITHOUT)


def test_smoothing_is_divided_by():
    for native in RUNNING[:1]:
        weight = replace(random_weight("layer", 8, 96), smoothing=normal(96).exp())
        x = normal(5, 96)
        z = NativeLinear(weight, "gaussian", native).prepare(x, 16).values
        expected = weight.rotation.apply(x.double() / weight.smoothing.double(), weight.signs)
        torch.testing.assert_close(z.double(), expected, rtol=1e-4, atol=1e-5)
