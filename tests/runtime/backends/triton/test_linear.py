"""The layer on the kernels against the reference backend: equal within float rounding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from runtime.backends import BACKENDS
from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton.linear import TritonLinear
from runtime.bench.random_layers import random_layer
from runtime.bench.workload import Ranks
from runtime.network.finite_watch import raise_if_seen
from runtime.network.projection import PreparedInput, project_all
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import random_weight
from tests.runtime.triton_device import DEVICE, full_width, relative_error, seeded

RANKS = Ranks(32, 8)
WIDE = ((1536, 1536), (6144, 1536), (1536, 6144), (9216, 1536), (13824, 1536))
"""Outputs and inputs of the network's layers."""
SIXTEEN_BITS = 2**-7 if DEVICE.type == "cuda" else 2**-6
"""Rotated tokens, low-rank activations and the result are rounded to bfloat16 one after the other,
by half of 2^-7 at most; the interpreter cuts off, which errs in one direction and by twice as
much."""
RELATIVE = {torch.float32: 1e-5, torch.bfloat16: SIXTEEN_BITS, torch.float16: SIXTEEN_BITS}
"""float32: sums of 96 terms, twice, each off by about 2^-24 of its terms' size."""
FOLDED = 2**-7
"""With whole-byte weights, ``down`` rotated back is rounded to bfloat16 once more."""
MOVED_CODE = 2e-3
"""In wide layers float32 rounding moves some of a million codes, each by a step of its own."""


def largest_error(dtype, residency, in_features, *, has_factors=True):
    """How far a layer's output may be off."""
    if residency == "int8" and has_factors:
        return RELATIVE[dtype] + FOLDED
    wide = dtype == torch.float32 and in_features > 96
    return RELATIVE[dtype] + (MOVED_CODE if wide else 0)


def on_kernels(weight, residency, rule="gaussian"):
    return TritonLinear(weight, rule, residency).to(DEVICE)


def on_the_reference(weight, rule="gaussian"):
    return ReferenceLinear(weight, rule).to(DEVICE)


def network_layer(out_features, in_features, weight_bits=4, name="layer"):
    """A layer with factors as large as the method's default budget makes them."""
    return random_layer(
        name,
        out_features,
        in_features,
        weight_bits=weight_bits,
        ranks=RANKS,
        generator=seeded(0),
    )


def random_input(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed)).to(DEVICE)


def assert_ragged_tokens_equal_the_reference(weight, residency, dtype, count):
    """Tokens of two batches read from a wider tensor, one of zeros, one that saturates; 5 bits."""
    x = random_input(2, count + 13, weight.in_features).to(dtype)[:, 13:]
    x[0, 3] = 0
    x[1, 5, 7] = 900
    found = on_kernels(weight, residency)(x, 5)
    expected = on_the_reference(weight)(x.float(), 5)
    assert found.dtype == dtype
    assert found.shape == (2, count, weight.out_features)
    assert relative_error(found, expected) < largest_error(dtype, residency, weight.in_features)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("weight_bits", [2, 3, 4, 5, 6, 7, 8])
def test_packed_layer_equals_the_reference(weight_bits, bits):
    weight = random_weight("layer", 40, 96, bits=weight_bits)
    x = random_input(18, 96, seed=bits)
    expected = on_the_reference(weight)(x, bits)
    found = on_kernels(weight, "packed")(x, bits)
    assert relative_error(found, expected) < RELATIVE[torch.float32]


ONE_CODE = 3e-3
"""A value on the border of two levels may fall to either: one of 18 x 96 by a step of 4 bits."""


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_a_layers_own_step_of_tokens(residency):
    weight = replace(random_weight("layer", 40, 96), token_step=0.6)
    x = random_input(18, 96, seed=1)
    found, expected = on_kernels(weight, residency)(x, 4), on_the_reference(weight)(x, 4)
    assert relative_error(found, expected) < ONE_CODE
    plain = on_the_reference(replace(weight, token_step=1.0))(x, 4)
    assert relative_error(plain, expected) > 0.02


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize(
    ("out_features", "in_features", "count"),
    [(40, 96, 9), *(full_width(*shape, 237) for shape in WIDE)],
)
def test_every_dtype(out_features, in_features, count, residency, dtype):
    weight = network_layer(out_features, in_features)
    assert_ragged_tokens_equal_the_reference(weight, residency, dtype, count)


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize("block", [None, (4, 8)])
def test_8_bit_factors(block, residency, dtype):
    weight = random_weight("layer", 40, 96, factor_bits=8, block=block)
    assert_ragged_tokens_equal_the_reference(weight, residency, dtype, 9)


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize(
    ("out_features", "in_features", "count"), [(40, 96, 9), full_width(1536, 1536, 237)]
)
def test_packed_weights_in_bfloat16(out_features, in_features, count, weight_bits):
    weight = network_layer(out_features, in_features, weight_bits)
    assert_ragged_tokens_equal_the_reference(weight, "packed", torch.bfloat16, count)


@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize(
    ("out_features", "in_features", "rank", "block"),
    [
        (40, 96, 0, None),
        (40, 96, 3, None),
        (40, 96, 0, (8, 24)),
        (40, 96, 17, (40, 8)),
        (40, 96, 1, (4, 96)),
        (40, 96, 2, (5, 32)),
        (40, 96, 33, (20, 48)),
        full_width(1536, 1536, 0, None),
        full_width(1536, 1536, 5, None),
        full_width(1536, 1536, 0, (1536, 48)),
        full_width(1536, 1536, 33, (24, 1536)),
        full_width(1536, 1536, 8, (96, 512)),
    ],
)
def test_factors_of_every_kind(out_features, in_features, rank, block, residency):
    """None, global alone, local alone, one block row, one block column, ranks to be padded."""
    weight = random_weight("layer", out_features, in_features, rank=rank, block=block)
    x = random_input(17, in_features)
    expected = on_the_reference(weight, "absmax")(x, 5)
    found = on_kernels(weight, residency, "absmax")(x, 5)
    has_factors = bool(rank or block)
    bound = largest_error(torch.float32, residency, in_features, has_factors=has_factors)
    assert relative_error(found, expected) < bound


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_other_parts_of_a_record(residency):
    """No signs, no bias; no rotation; smoothing."""
    no_bias = replace(random_weight("layer", 24, 96, signs=False), bias=None)
    unrotated = random_weight("layer", 24, 40)
    smoothed = random_weight("layer", 24, 96, smoothing=True)
    for weight in (no_bias, unrotated, smoothed):
        for bits in (7, 16):
            x = random_input(5, weight.in_features)
            expected = on_the_reference(weight)(x, bits)
            found = on_kernels(weight, residency)(x, bits)
            bound = FOLDED if residency == "int8" else RELATIVE[torch.float32]
            assert relative_error(found, expected) < bound


@pytest.mark.parametrize(
    ("out_features", "in_features", "count", "part", "dtype"),
    [(24, 96, 20, 7, torch.float32), full_width(256, 1536, 300, 77, torch.bfloat16)],
)
def test_layers_of_one_input_share_what_they_prepare(out_features, in_features, count, part, dtype):
    block = (out_features // 4, in_features // 3)
    weights = [
        random_weight(name, out_features, in_features, block=block, seed=seed)
        for seed, name in enumerate("abc")
    ]
    layers = [on_kernels(weight, "packed") for weight in weights]
    x = random_input(2, count, in_features).to(dtype)
    bits = dict.fromkeys("abc", 4)
    shared = project_all(layers, x, bits, first=(None, part, None))
    apart = [layers[0](x, 4), layers[1](x[:, :part], 4), layers[2](x, 4)]
    for one, other in zip(shared, apart, strict=True):
        assert torch.equal(one, other)
    assert layers[0].share_key(4) != layers[0].share_key(5)
    assert layers[0].share_key(4) != on_kernels(weights[0], "int8").share_key(4)


def test_an_input_of_another_backend_is_refused():
    weight = random_weight("layer", 24, 96)
    prepared = on_the_reference(weight).prepare(random_input(2, 96), 4)
    assert isinstance(prepared, PreparedInput)
    with pytest.raises(TypeError, match=r"layer layer: .*another backend"):
        on_kernels(weight, "packed").apply_to(prepared)


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_no_tokens_and_one_token_and_zeros(residency):
    weight = random_weight("layer", 24, 96)
    layer = on_kernels(weight, residency)
    x = random_input(3, 96)
    x[1] = 0
    y = layer(x, 4)
    assert layer(x[None, :0], 4).shape == (1, 0, 24)
    torch.testing.assert_close(layer(x[0], 4), y[0])
    assert torch.equal(y[1].cpu(), weight.bias.float())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, inside the interpreter
@pytest.mark.parametrize("value", [1e30, torch.nan])  # the square of 1e30 is too large for float32
@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize(("out_features", "in_features"), [(24, 96), full_width(64, 1536)])
def test_a_value_that_is_not_finite_names_the_layer(out_features, in_features, residency, value):
    block = (out_features // 2, in_features // 4)
    weight = random_weight("blocks.3.ff", out_features, in_features, block=block)
    layer = on_kernels(weight, residency)
    x = random_input(3, in_features)
    x[1, 7] = value
    with pytest.raises(ValueError, match=r"layer blocks\.3\.ff: .*not finite"):
        layer(x, 4)
    raise_if_seen(DEVICE)  # once said, it is forgotten


@pytest.mark.parametrize("name", ["triton", "triton-packed"])
def test_layers_too_wide_for_the_kernels_go_to_the_reference(name):
    make_layer = BACKENDS[name].make_layer
    quantizer = QuantizerRecord(weight_scale="gaussian", activation_scale="absmax")
    wide = random_weight("wide", 2, 2**15, rank=0, block=None)
    assert isinstance(make_layer(wide, quantizer), ReferenceLinear)
    narrow = make_layer(random_weight("narrow", 2, 64, rank=0, block=None), quantizer)
    assert isinstance(narrow, TritonLinear)
    assert narrow.residency == {"triton": "int8", "triton-packed": "packed"}[name]
    assert narrow.activation_scale == "absmax"


@pytest.mark.parametrize(("residency", "largest"), [("packed", 0.32), ("int8", 0.58)])
def test_memory_of_a_block_at_full_width(residency, largest):
    """All linear layers of a block, W4, ranks 32 and 8, the block shapes with most numbers."""
    counts = {(1536, 1536): 10, (6144, 1536): 2, (1536, 6144): 2}
    used = whole = 0
    for out_features, in_features in WIDE:
        count = counts.get((out_features, in_features), 1)
        weight = network_layer(out_features, in_features)
        layer = TritonLinear(weight, "gaussian", residency)
        used += count * layer.resident_bytes
        whole += count * 2 * out_features * in_features
        assert layer.resident_bytes == sum(b.nbytes for b in nn.Module.buffers(layer))
    assert used <= largest * whole
