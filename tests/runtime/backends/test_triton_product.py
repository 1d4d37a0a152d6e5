"""The integer product's kernel: equal to exact integers for every pair of bits."""

import pytest
import torch

from runtime.backends.reference import integer_product
from runtime.backends.triton.resident import doubled_offsets, make_resident
from tests.runtime.triton_device import DEVICE, launch, seeded


def random_codes(rows, columns, bits, seed):
    """Random codes, the first row saturated high and the second low."""
    codes = torch.randint(2**bits, (rows, columns), generator=seeded(seed)).to(torch.uint8)
    codes[0], codes[1] = 2**bits - 1, 0
    return codes


def doubled(codes, bits, weight, weight_bits, residency, *, centred=None):
    """The kernel's exact product for activation codes uint8 [..., in]."""
    if centred is None:
        centred = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8).to(DEVICE)
    resident = make_resident(weight.to(DEVICE), weight_bits, residency)
    return launch.product(
        centred,
        torch.ones(centred.shape[:-1], device=DEVICE),
        centred.sum(-1, dtype=torch.int32),
        resident,
        doubled_offsets(weight, weight_bits).to(DEVICE),
        torch.ones(len(weight), device=DEVICE),
        raw=True,
    ).cpu()


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_equal_the_reference(bits, weight_bits):
    tokens = random_codes(19, 96, bits, seed=bits)
    weight = random_codes(37, 96, weight_bits, seed=10 + weight_bits)
    expected = integer_product(tokens, bits, weight, weight_bits)
    residency = "packed" if weight_bits != 8 else "int8"
    assert torch.equal(doubled(tokens, bits, weight, weight_bits, residency).to(expected), expected)


@pytest.mark.parametrize("weight_bits", [2, 3, 4, 6, 7])
def test_weights_of_whole_bytes_give_the_same(weight_bits):
    tokens = random_codes(5, 70, 6, seed=1)
    weight = random_codes(9, 70, weight_bits, seed=2)
    expected = integer_product(tokens, 6, weight, weight_bits)
    assert torch.equal(doubled(tokens, 6, weight, weight_bits, "int8").to(expected), expected)


@pytest.mark.parametrize("count", [1, 16, 17])
@pytest.mark.parametrize("in_features", [33, 200])
def test_ragged_sizes(count, in_features):
    """Rows that fill no tile, and inputs that fill no slice of a packed row."""
    tokens = torch.randint(16, (count, in_features), generator=seeded(3)).to(torch.uint8)
    weight = random_codes(34, in_features, 5, seed=4)
    expected = integer_product(tokens, 4, weight, 5)
    assert torch.equal(doubled(tokens, 4, weight, 5, "packed").to(expected), expected)


def test_part_of_every_picture_is_read_in_place():
    tokens = torch.randint(-8, 8, (2, 20, 64), generator=seeded(5)).to(torch.int8).to(DEVICE)
    weight = random_codes(8, 64, 4, seed=6)
    part = tokens[:, 7:]
    assert not part.is_contiguous()
    codes = (part.cpu().to(torch.int16) + 8).to(torch.uint8)
    expected = integer_product(codes.flatten(0, 1), 4, weight, 4).view(2, 13, 8)
    found = doubled(codes, 4, weight, 4, "packed", centred=part)
    assert torch.equal(found.to(expected), expected)


def test_the_largest_sums_fit():
    """Saturated rows at the longest inputs of the network, 8 bits against 8."""
    tokens = torch.full((1, 6144), 255, dtype=torch.uint8)
    weight = torch.cat([tokens, torch.zeros_like(tokens)])
    found = doubled(tokens, 8, weight, 8, "int8")
    assert found.tolist() == [[6144 * 255 * 255, -6144 * 255 * 255]]


def test_tiles_never_cross_a_slice():
    assert launch.tile_length(128, 768) == 128
    assert launch.tile_length(128, 192) == 64
    assert launch.tile_length(64, 768) == 64
