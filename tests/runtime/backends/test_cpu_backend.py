"""The fast CPU backend against the reference: integers exactly, floats within rounding."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.hadamard import Rotation, random_signs
from runtime.backends import BACKENDS, select_backend
from runtime.backends.cpu.int8_weight import Int8Weight, inexact_reason
from runtime.backends.cpu.kernels import SWITCH, VARIANTS, WITHOUT, Kernels, load_variant
from runtime.backends.cpu.linear import CpuLinear
from runtime.backends.cpu.low_rank import FactorParts, low_rank_product
from runtime.backends.cpu.native_linear import NativeLinear
from runtime.backends.cpu.rotation import CpuRotation
from runtime.backends.reference import ReferenceLinear, integer_product
from runtime.processor import processor_features
from schemas.errors import UsageError
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import random_weight

CPU = torch.device("cpu")

# Without exact integer kernels of oneDNN's there is nothing to compare.
needs_onednn = pytest.mark.skipif(inexact_reason() is not None, reason=str(inexact_reason()))
needs_cpu_backend = pytest.mark.skipif(
    BACKENDS["cpu"].missing(CPU) is not None, reason=str(BACKENDS["cpu"].missing(CPU))
)


def implementations():
    """How the backend can compute a layer on this machine: (weight, rule) -> layer, by name."""
    exact = inexact_reason() is None
    found = {WITHOUT: CpuLinear} if exact else {}
    for variant in VARIANTS:
        kernels = load_variant(variant)
        if isinstance(kernels, Kernels):
            found[variant] = partial(NativeLinear, kernels=kernels)
            if exact:
                found[f"{WITHOUT}, prepared by {variant}"] = partial(CpuLinear, kernels=kernels)
    return found


def preparations():
    """Likewise, all that can prepare an input: oneDNN's products need not be exact for that."""
    found = {**implementations(), WITHOUT: CpuLinear}
    for variant in VARIANTS:
        kernels = load_variant(variant)
        if isinstance(kernels, Kernels):
            found[f"{WITHOUT}, prepared by {variant}"] = partial(CpuLinear, kernels=kernels)
    return found


every_preparation = pytest.mark.parametrize(
    "make", preparations().values(), ids=preparations().keys()
)
every_implementation = pytest.mark.parametrize(
    "make", implementations().values(), ids=implementations().keys()
)

# float32: products of up to 1536 terms, each off by at most 2^-24 of the sum of magnitudes. The
# integers are exact, but those above 2^24 leave the kernel rounded to float32, and 8-bit offsets
# cancel two digits of it: 10^-5 of the output, 100 dB.
FLOAT32_DB = 100
# bfloat16 keeps 8 bits: rounding a normal value once costs 55.6 dB. Factors, low-rank
# activations, factor branches, integer product, token scale and output are rounded: six of them are
# 47.8 dB, less what they lose to unlucky draws. Quantization to 4 bits itself is at 19 dB.
BFLOAT16_DB = 46


def snr_db(actual, reference):
    noise = (actual.double() - reference.double()).norm()
    return float(20 * torch.log10(reference.double().norm() / noise))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(make, weight, rule="gaussian"):
    return make(weight, rule), ReferenceLinear(weight, rule)


@needs_onednn
@settings(deadline=None, max_examples=60)
@given(
    a_bits=st.integers(1, 8),
    w_bits=st.integers(1, 8),
    tokens=st.integers(1, 40),
    inner=st.integers(1, 500),
    seed=st.integers(0, 2**16),
)
def test_integer_sums_are_the_references(a_bits, w_bits, tokens, inner, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(2**a_bits, (tokens, inner), generator=generator).to(torch.uint8)
    w = torch.randint(2**w_bits, (5, inner), generator=generator).to(torch.uint8)
    a[0], w[0], w[1] = 2**a_bits - 1, 2**w_bits - 1, 0  # saturated rows: the largest sums
    weight = Int8Weight(w, w_bits, torch.ones(5))
    expected = integer_product(a, a_bits, w, w_bits).double()
    assert torch.equal(weight.doubled_product(a, a_bits), expected)


@needs_onednn
@pytest.mark.parametrize("tokens", [1, 2, 17, 333])
@pytest.mark.parametrize("level", [0, 255])
def test_the_worst_sums_of_the_widest_layer_do_not_saturate(tokens, level):
    """6144 inputs, all at the largest code: 2 * 10^8 per sum, out in float32."""
    codes = torch.full((tokens, 6144), 255, dtype=torch.uint8)
    weight = Int8Weight(torch.full((16, 6144), level, dtype=torch.uint8), 8, torch.ones(16))
    y = weight.product(codes, 8, torch.float32)
    sums, channels = weight.token_terms(codes, 8)
    expected = 6144 * 127.5 * (level - 127.5)
    torch.testing.assert_close(y + sums * channels, torch.full_like(y, expected), rtol=3e-7, atol=0)


@every_implementation
@pytest.mark.parametrize("bits", [*range(1, 9), 16])
@pytest.mark.parametrize("weight_bits", range(1, 9))
def test_layer_equals_the_reference_for_every_bit_pair(make, weight_bits, bits):
    fast, slow = both(make, random_weight("layer", 40, 96, bits=weight_bits))
    x = normal(7, 96, seed=bits)
    assert snr_db(fast(x, bits), slow(x, bits)) > FLOAT32_DB
    narrow = fast(x.bfloat16(), bits)
    assert narrow.dtype == torch.bfloat16
    assert snr_db(narrow, slow(x.bfloat16().float(), bits)) > BFLOAT16_DB


@every_preparation
@pytest.mark.parametrize("size", [48, 192, 320, 640, 768, 1536, 96 * 11, 24, 15])
@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
def test_codes_are_the_references(make, size, rule):
    """But where a value lies within float32 rounding of a border: one in 10^4 is a wide margin."""
    fast, slow = both(make, random_weight("layer", 8, size, block=None), rule)
    x = normal(64, size)
    a, b = fast.prepare(x, 4), slow.prepare(x, 4)
    assert a.codes.float().std() > 1
    assert float((a.codes != b.codes).double().mean()) < 1e-4
    assert int((a.codes.int() - b.codes.int()).abs().max()) <= 1
    torch.testing.assert_close(a.scale, b.scale, rtol=1e-5, atol=0)


@every_preparation
@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
def test_a_layers_own_step_of_tokens_is_the_references(make, rule):
    weight = replace(random_weight("layer", 8, 96, block=None), token_step=0.6)
    fast, slow = both(make, weight, rule)
    x = normal(64, 96)
    a, b = fast.prepare(x, 4), slow.prepare(x, 4)
    assert float((a.codes != b.codes).double().mean()) < 1e-3
    torch.testing.assert_close(a.scale, b.scale, rtol=1e-5, atol=0)
    plain = ReferenceLinear(replace(weight, token_step=1.0), rule)
    torch.testing.assert_close(b.scale, 0.6 * plain.prepare(x, 4).scale, rtol=1e-5, atol=0)
    assert fast.share_key(4) != make(replace(weight, token_step=1.0), rule).share_key(4)


@every_preparation
@pytest.mark.parametrize("size", [1e-41, 1e-38, 1e30])
def test_tiny_and_huge_rows_have_the_references_codes(make, size):
    """A scale below 10^-38 has no finite reciprocal in float32."""
    fast, slow = both(make, random_weight("layer", 8, 96, block=None), "absmax")
    x = normal(32, 96)
    x[3] = 0
    x *= size
    a, b = fast.prepare(x, 4), slow.prepare(x, 4)
    assert bool((a.codes[3] == 8).all())
    # Numbers below 10^-38 have few bits left, so the two may round them differently.
    assert float((a.codes != b.codes).double().mean()) < (0.05 if size < 1e-40 else 1e-3)
    assert float(a.codes.float().std()) > 1


@pytest.mark.parametrize("size", [16, 48, 192, 512, 1536, 2048, 5120, 6144, 96 * 11, 15])
def test_rotation_is_the_rotation(size):
    rotation, signs = Rotation.for_size(size), None
    if not rotation.is_identity:
        signs = random_signs(size, 3)
    smoothing = normal(size).exp()
    x = normal(5, size)
    before = x.clone()
    z = CpuRotation.for_layer(rotation, signs, smoothing)(x)
    expected = rotation.apply(x.double() / smoothing.double(), signs)
    torch.testing.assert_close(z.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.std()))
    z.zero_()
    assert torch.equal(x, before)  # the result is the caller's to overwrite, the input is not


def test_the_low_rank_product_adds_both_branches_and_the_bias():
    weight = random_weight("layer", 40, 96, rank=3, block=(8, 12))
    weight = replace(weight, smoothing=normal(96).exp())
    rotation = CpuRotation.for_layer(weight.rotation, weight.signs, weight.smoothing)
    x = normal(6, 96)
    z = weight.rotation.apply(x / weight.smoothing, weight.signs)
    expected = z @ weight.low_rank().T + weight.bias.float()
    factors = low_rank_product(FactorParts.of(weight), rotation)
    y = torch.ones_like(expected)
    factors.add_to(y, x)
    torch.testing.assert_close(y, expected + 1, rtol=1e-4, atol=1e-4)
    plain = random_weight("layer", 40, 96, rank=0, block=None)
    assert low_rank_product(FactorParts.of(plain), rotation) is None


@every_implementation
@pytest.mark.parametrize("changes", [{}, {"bias": None}, {"smoothing": normal(96).exp()}])
@pytest.mark.parametrize(("rank", "block"), [(0, None), (2, None), (0, (4, 8)), (2, (4, 8))])
@pytest.mark.parametrize("bits", [4, 16])
def test_layers_with_and_without_their_parts(make, changes, rank, block, bits):
    weight = replace(random_weight("layer", 24, 96, rank=rank, block=block), **changes)
    fast, slow = both(make, weight)
    x = normal(9, 96)
    assert snr_db(fast(x, bits), slow(x, bits)) > FLOAT32_DB


@every_implementation
def test_a_layer_without_rotation(make):
    weight = random_weight("layer", 24, 96, signs=False)
    fast, slow = both(make, replace(weight, rotation=Rotation.identity(96)))
    x = normal(9, 96)
    before = x.clone()
    assert snr_db(fast(x, 4), slow(x, 4)) > FLOAT32_DB
    assert torch.equal(x, before)


@every_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shapes_dtypes_and_strides_of_the_input(make, dtype):
    fast = make(random_weight("layer", 24, 96), "gaussian")
    x = normal(2, 3, 96).to(dtype)
    y = fast(x, 4)
    assert y.dtype == dtype
    assert y.shape == (2, 3, 24)
    torch.testing.assert_close(fast(x.reshape(6, 96), 4).view(2, 3, 24), y)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(fast(strided, 4), y)
    assert torch.equal(fast(x[:, 1:], 4), fast(x[:, 1:].contiguous(), 4))
    assert fast(x[:, :0], 4).shape == (2, 0, 24)


@pytest.mark.parametrize("variant", VARIANTS)
def test_slices_prepared_by_kernels_are_the_whole(variant, monkeypatch):
    kernels = load_variant(variant)
    if not isinstance(kernels, Kernels):
        pytest.skip(f"{variant}: {kernels}")
    fast = CpuLinear(random_weight("layer", 24, 96), "gaussian", kernels)
    x = normal(50, 96)
    whole = fast.prepare(x, 4)
    monkeypatch.setattr("runtime.backends.cpu.native_preparation._SLICE_VALUES", 7 * 96)
    sliced = fast.prepare(x, 4)
    assert torch.equal(whole.codes, sliced.codes)
    assert torch.equal(whole.scale, sliced.scale)


@needs_onednn
def test_inputs_longer_than_a_slice(monkeypatch):
    """Slices are for speed: the codes are the same, whatever their size."""
    fast = CpuLinear(random_weight("layer", 24, 96), "gaussian")
    x = normal(50, 96)
    whole = fast.prepare(x, 4)
    monkeypatch.setattr(
        "runtime.backends.cpu.linear._SLICE_VALUES", 7 * 96 // torch.get_num_threads()
    )
    sliced = fast.prepare(x, 4)
    # Not every bit: a product of other height may add in another order, at a border of two levels.
    assert float((whole.codes != sliced.codes).double().mean()) < 1e-3
    torch.testing.assert_close(whole.scale, sliced.scale)


@every_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factors", [{"rank": 0, "block": None}, {}])
def test_a_zero_token_gives_the_bias(make, dtype, factors):
    weight = random_weight("layer", 24, 96, **factors)
    x = normal(3, 96).to(dtype)
    x[1] = 0
    assert torch.equal(make(weight, "gaussian")(x, 4)[1].float(), weight.bias.float())


@every_implementation
def test_tiny_and_huge_tokens(make):
    """Scales down to the smallest normal float32, beside tokens of usual size."""
    fast, slow = both(make, random_weight("layer", 24, 96))
    x = normal(4, 96) * torch.tensor([1e-17, 1e-8, 1.0, 1e15])[:, None]
    for row in range(4):
        a, b = fast.prepare(x, 4), slow.prepare(x, 4)
        assert torch.equal(a.codes[row], b.codes[row])
        assert snr_db(fast(x, 4)[row], slow(x, 4)[row]) > FLOAT32_DB


@every_preparation
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_value_that_is_not_finite_names_the_layer(make, value):
    layer = make(random_weight("blocks.3.ff", 24, 96), "gaussian")
    x = normal(2, 96)
    x[1, 5] = value
    with pytest.raises(ValueError, match=r"layer blocks\.3\.ff: .*not finite"):
        layer(x, 4)


def test_more_inputs_than_32_bits_hold_are_refused():
    with pytest.raises(ValueError, match="32-bit sums hold"):
        Int8Weight(torch.zeros(1, 70_000, dtype=torch.uint8), 4, torch.ones(1))


@needs_cpu_backend
def test_a_layer_with_more_inputs_is_left_to_the_reference():
    weight = random_weight("layer", 1, 70_000, bits=1, rank=0, block=None)
    record = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")
    assert isinstance(BACKENDS["cpu"].make_layer(weight, record), ReferenceLinear)


@needs_cpu_backend
def test_it_comes_first_on_the_cpu_and_is_refused_elsewhere():
    assert select_backend("auto", CPU).name == "cpu"
    with pytest.raises(UsageError, match="on the CPU alone"):
        select_backend("cpu", torch.device("cuda"))


@needs_onednn
@pytest.mark.skipif(
    not processor_features().get("avx2"), reason="kernels without VNNI are an x86 matter"
)
def test_kernels_that_saturate_are_found_out():
    """The check's own check: told to do without VNNI, oneDNN gives wrong sums."""
    code = (
        "import torch; from runtime.backends import select_backend;"
        "from runtime.backends.cpu.int8_weight import inexact_reason;"
        "print(inexact_reason(), select_backend('auto', torch.device('cpu')).name)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", SWITCH: WITHOUT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "saturate" in run.stdout
    assert run.stdout.split()[-1] == "reference"


def test_the_fast_backend_stands_before_the_reference():
    names = list(BACKENDS)
    assert names.index("cpu") < names.index("reference")


@needs_onednn
@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_the_kernels_layout_can_be_undone(bits):
    codes = torch.randint(2**bits, (6, 33), generator=torch.Generator().manual_seed(bits))
    weight = Int8Weight(codes.to(torch.uint8), bits, torch.ones(6))
    assert torch.equal(weight.odd_integers(torch.float32), 2 * codes.float() - (2**bits - 1))


@every_implementation
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("block", [None, (4, 8)])
def test_8_bit_factors_equal_the_references(make, bits, block):
    fast, slow = both(make, random_weight("layer", 40, 96, factor_bits=8, block=block))
    x = normal(9, 96)
    torch.testing.assert_close(fast(x, bits), slow(x, bits), rtol=1e-4, atol=1e-4)
