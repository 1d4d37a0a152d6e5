"""The layer on the kernels against the reference backend: equal within float rounding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton import plain
from runtime.backends.triton.adapter import layer_tensors, make_layer
from runtime.backends.triton.linear import TritonLinear
from runtime.network.projection import PreparedInput, project_all
from tests.artifacts.make_pack import random_weight
from tests.runtime.triton_device import DEVICE, seeded

SIXTEEN_BITS = 2**-7 if DEVICE.type == "cuda" else 2**-6
"""Rotated tokens, thin vectors and the result are rounded to bfloat16 one after the other, by half
of 2^-7 at most; the interpreter cuts off, which errs in one direction and by twice as much."""
RELATIVE = {torch.float32: 1e-5, torch.bfloat16: SIXTEEN_BITS, torch.float16: SIXTEEN_BITS}
"""float32: sums of 96 terms, twice, each off by about 2^-24 of its terms' size."""
FOLDED = 2**-7
"""With whole-byte weights, ``down`` rotated back is rounded to bfloat16 once more."""


def relative_error(actual, expected):
    return float((actual.double().cpu() - expected.double()).norm() / expected.double().norm())


def on_kernels(weight, residency, rule="gaussian"):
    return TritonLinear(layer_tensors(weight, rule), rule, residency).to(DEVICE)


def random_input(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("weight_bits", [2, 3, 4, 5, 6, 7, 8])
def test_packed_layer_equals_the_reference(weight_bits, bits):
    weight = random_weight("layer", 40, 96, bits=weight_bits)
    x = random_input(18, 96, seed=bits)
    expected = ReferenceLinear(weight, "gaussian")(x, bits)
    found = on_kernels(weight, "packed")(x.to(DEVICE), bits)
    assert relative_error(found, expected) < RELATIVE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_dtypes(residency, dtype):
    weight = random_weight("layer", 40, 96)
    x = random_input(2, 9, 96).to(dtype)
    expected = ReferenceLinear(weight, "gaussian")(x.float(), 6)
    found = on_kernels(weight, residency)(x.to(DEVICE), 6)
    assert found.dtype == dtype
    assert found.shape == (2, 9, 40)
    bound = RELATIVE[dtype] + (FOLDED if residency == "int8" else 0)
    assert relative_error(found, expected) < bound


@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize(
    ("rank", "block"),
    [(0, None), (3, None), (0, (8, 24)), (17, (40, 8)), (1, (4, 96)), (2, (5, 32)), (33, (20, 48))],
)
def test_factors_of_every_kind(rank, block, residency):
    """None, global alone, local alone, one block row, one block column, ranks to be padded."""
    weight = random_weight("layer", 40, 96, rank=rank, block=block)
    x = random_input(17, 96)
    expected = ReferenceLinear(weight, "absmax")(x, 5)
    found = on_kernels(weight, residency, "absmax")(x.to(DEVICE), 5)
    folded = residency == "int8" and (rank or block)
    assert relative_error(found, expected) < (FOLDED if folded else RELATIVE[torch.float32])


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_other_parts_of_a_record(residency):
    """No signs, no bias; no rotation; smoothing."""
    no_bias = replace(random_weight("layer", 24, 96, signs=False), bias=None)
    unrotated = random_weight("layer", 24, 40)
    smoothed = random_weight("layer", 24, 96, smoothing=True)
    for weight in (no_bias, unrotated, smoothed):
        for bits in (7, 16):
            x = random_input(5, weight.in_features)
            expected = ReferenceLinear(weight, "gaussian")(x, bits)
            found = on_kernels(weight, residency)(x.to(DEVICE), bits)
            bound = FOLDED if residency == "int8" else RELATIVE[torch.float32]
            assert relative_error(found, expected) < bound


def test_layers_of_one_input_share_what_they_prepare():
    layers = [
        on_kernels(random_weight(name, 24, 96, seed=seed), "packed")
        for seed, name in enumerate("abc")
    ]
    x = random_input(2, 20, 96).to(DEVICE)
    bits = dict.fromkeys("abc", 4)
    shared = project_all(layers, x, bits, first=(None, 7, None))
    apart = [layers[0](x, 4), layers[1](x[:, :7], 4), layers[2](x, 4)]
    for one, other in zip(shared, apart, strict=True):
        assert torch.equal(one, other)
    assert layers[0].share_key(4) != layers[0].share_key(5)
    assert layers[0].share_key(4) != on_kernels(random_weight("a", 24, 96), "int8").share_key(4)


def test_an_input_of_another_backend_is_refused():
    weight = random_weight("layer", 24, 96)
    prepared = ReferenceLinear(weight, "gaussian").prepare(random_input(2, 96), 4)
    assert isinstance(prepared, PreparedInput)
    with pytest.raises(TypeError, match=r"layer layer: .*another backend"):
        on_kernels(weight, "packed").apply_to(prepared)


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_no_tokens_and_one_token_and_zeros(residency):
    weight = random_weight("layer", 24, 96)
    layer = on_kernels(weight, residency)
    x = random_input(3, 96).to(DEVICE)
    x[1] = 0
    y = layer(x, 4)
    assert layer(x[None, :0], 4).shape == (1, 0, 24)
    torch.testing.assert_close(layer(x[0], 4), y[0])
    assert torch.equal(y[1].cpu(), weight.bias.float())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, inside the interpreter
def test_a_value_that_is_not_finite_names_the_layer():
    layer = on_kernels(random_weight("blocks.3.ff", 24, 96), "packed")
    x = random_input(2, 96)
    x[1, 7] = 1e30  # its square is too large for float32
    with pytest.raises(ValueError, match=r"layer blocks\.3\.ff: .*not finite"):
        layer(x.to(DEVICE), 4)


def test_layers_too_wide_for_the_kernels_go_to_the_reference():
    wide = random_weight("wide", 2, 2**15, rank=0, block=None)
    assert isinstance(make_layer(wide, "gaussian", "packed"), ReferenceLinear)
    narrow = random_weight("narrow", 2, 64, rank=0, block=None)
    assert isinstance(make_layer(narrow, "gaussian", "int8"), TritonLinear)


@pytest.mark.parametrize("rule", ["gaussian", "absmax"])
@pytest.mark.parametrize(("weight_bits", "bits"), [(4, 4), (3, 8), (8, 2), (8, 8)])
def test_the_plain_layer_is_the_reference_bit_for_bit(weight_bits, bits, rule):
    weight = random_weight("layer", 40, 96, bits=weight_bits, smoothing=bits == 2)
    x = random_input(18, 96, seed=bits)
    x[3] = 0
    expected = ReferenceLinear(weight, rule)(x, bits)
    assert torch.equal(plain.forward(layer_tensors(weight, rule), x, bits, rule), expected)


@pytest.mark.parametrize(("residency", "largest"), [("packed", 0.32), ("int8", 0.58)])
def test_memory_of_a_block_at_full_width(residency, largest):
    """All linear layers of a block, W4, ranks 32 and 8, the block shapes with most numbers."""
    sizes = {(1536, 1536): 10, (6144, 1536): 2, (1536, 6144): 2, (13824, 1536): 1, (9216, 1536): 1}
    blocks = {
        (1536, 1536): (192, 256),
        (6144, 1536): (512, 256),
        (1536, 6144): (256, 512),
        (13824, 1536): (384, 384),
        (9216, 1536): (512, 256),
    }
    used = whole = 0
    for (out_features, in_features), count in sizes.items():
        weight = random_weight(
            "layer", out_features, in_features, rank=32, block=blocks[out_features, in_features]
        )
        layer = TritonLinear(layer_tensors(weight, "gaussian"), "gaussian", residency)
        used += count * layer.resident_bytes
        whole += count * 2 * out_features * in_features
        assert layer.resident_bytes == sum(b.nbytes for b in nn.Module.buffers(layer))
    assert used <= largest * whole
