"""The integer product's kernel: equal to exact integers for every pair of bits."""

import pytest
import torch

from runtime.backends.reference import integer_product
from runtime.backends.triton.resident import doubled_offsets, make_resident
from tests.runtime.triton_device import DEVICE, full_width, launch, seeded


def random_codes(rows, columns, bits, seed):
    """Random codes on the device, the last row saturated low and the first high."""
    codes = torch.randint(2**bits, (rows, columns), generator=seeded(seed)).to(torch.uint8)
    codes[-1] = 0
    codes[0] = 2**bits - 1
    return codes.to(DEVICE)


def doubled(codes, bits, weight, weight_bits, residency, *, centred=None):
    """The kernel's exact product for activation codes uint8 [..., in]."""
    if centred is None:
        centred = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    resident = make_resident(weight, weight_bits, residency)
    return launch.product(
        centred,
        torch.ones(centred.shape[:-1], device=DEVICE),
        centred.sum(-1, dtype=torch.int32),
        resident,
        doubled_offsets(weight, weight_bits),
        torch.ones(len(weight), device=DEVICE),
        raw=True,
    )


def assert_exact(tokens, bits, weight, weight_bits, residency):
    """The kernel's product is the reference's, bit for bit."""
    expected = integer_product(tokens, bits, weight, weight_bits)
    found = doubled(tokens, bits, weight, weight_bits, residency)
    assert torch.equal(found.to(expected), expected)


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    ("count", "in_features", "out_features"), [(19, 96, 37), full_width(77, 384, 200)]
)
def test_integers_equal_the_reference(count, in_features, out_features, bits, weight_bits):
    tokens = random_codes(count, in_features, bits, seed=bits)
    weight = random_codes(out_features, in_features, weight_bits, seed=10 + weight_bits)
    assert_exact(tokens, bits, weight, weight_bits, "packed")


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize(
    ("count", "in_features", "out_features"), [(5, 70, 9), full_width(77, 384, 200)]
)
def test_weights_of_whole_bytes_give_the_same(count, in_features, out_features, weight_bits):
    weight = random_codes(out_features, in_features, weight_bits, seed=2)
    for bits in range(2, 9):
        tokens = random_codes(count, in_features, bits, seed=1)
        assert_exact(tokens, bits, weight, weight_bits, "int8")


WIDE = ((1536, 1536), (1536, 6144), (1536, 9216), (1536, 13824), (6144, 1536))
"""Inputs and outputs of the network's layers."""


@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize("weight_bits", [4, 5])
@pytest.mark.parametrize(
    ("count", "in_features", "out_features"),
    [
        *((count, size, 34) for count in (1, 16, 17) for size in (33, 200)),
        *(
            full_width(count, *shape)
            for count in (1, 2, 17, 333, 1024, 2381, 4096, 4762)
            for shape in WIDE
        ),
    ],
)
def test_ragged_sizes(count, in_features, out_features, weight_bits, residency):
    """Rows that fill no tile, and inputs that fill no slice of a packed row."""
    tokens = random_codes(count, in_features, 8, seed=3)
    weight = random_codes(out_features, in_features, weight_bits, seed=4)
    assert_exact(tokens, 8, weight, weight_bits, residency)


def test_part_of_every_picture_is_read_in_place():
    tokens = torch.randint(-8, 8, (2, 20, 64), generator=seeded(5)).to(torch.int8).to(DEVICE)
    weight = random_codes(8, 64, 4, seed=6)
    part = tokens[:, 7:]
    assert not part.is_contiguous()
    codes = (part.to(torch.int16) + 8).to(torch.uint8)
    expected = integer_product(codes.flatten(0, 1), 4, weight, 4).view(2, 13, 8)
    found = doubled(codes, 4, weight, 4, "packed", centred=part)
    assert torch.equal(found.to(expected), expected)


def test_the_largest_sums_fit():
    """Saturated rows at the longest inputs of the network, 8 bits against 8."""
    tokens = torch.full((1, 6144), 255, dtype=torch.uint8, device=DEVICE)
    weight = torch.cat([tokens, torch.zeros_like(tokens)])
    found = doubled(tokens, 8, weight, 8, "int8")
    assert found.tolist() == [[6144 * 255 * 255, -6144 * 255 * 255]]


def test_tiles_never_cross_a_slice():
    assert launch.tile_length(128, 768) == 128
    assert launch.tile_length(128, 192) == 64
    assert launch.tile_length(64, 768) == 64
