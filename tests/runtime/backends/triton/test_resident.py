"""The layouts in device memory: nothing lost, as small as they say, offsets exact."""

import pytest
import torch

from runtime.backends.triton.resident import doubled_offsets, make_resident, signed_codes
from tests.runtime.triton_device import seeded


@pytest.mark.parametrize("residency", ["int8", "packed"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("columns", [1, 7, 31, 32, 33, 64, 127, 200, 256, 257, 299])
def test_codes_come_back(columns, bits, residency):
    codes = torch.randint(2**bits, (5, columns), generator=seeded(columns)).to(torch.uint8)
    resident = make_resident(codes, bits, residency)
    signed = signed_codes(resident, bits, columns)
    assert torch.equal(signed.int() + 2 ** (bits - 1), codes.int())
    assert resident.slice_length % 32 == 0
    if resident.low is not None:
        assert resident.slice_length % resident.low.shape[1] == 0


@pytest.mark.parametrize("in_features", [1536, 6144])
@pytest.mark.parametrize("bits", range(1, 9))
def test_memory_of_full_size_rows(bits, in_features):
    codes = torch.zeros(2, in_features, dtype=torch.uint8)
    whole_bytes = 2 * in_features
    assert make_resident(codes, bits, "int8").bytes == whole_bytes
    packed = make_resident(codes, bits, "packed").bytes
    assert packed == (whole_bytes if bits == 7 else whole_bytes * bits // 8)


def test_neighbours_in_a_byte_stand_half_a_row_apart():
    codes = torch.arange(64, dtype=torch.uint8)[None] % 16
    high = make_resident(codes, 4, "packed").high
    assert torch.equal(high, codes[:, :32] | codes[:, 32:] << 4)


@pytest.mark.parametrize("bits", range(1, 9))
def test_offsets_complete_the_doubled_product(bits):
    weight = torch.randint(2**bits, (5, 77), generator=seeded(bits)).to(torch.uint8)
    tokens = torch.randint(-128, 128, (6, 77), generator=seeded(9))  # codes of 8 bits, centred
    signed = weight.long() - 2 ** (bits - 1)
    expected = (2 * tokens + 1) @ (2 * weight.long() - (2**bits - 1)).T
    sums = tokens.sum(1, keepdim=True)
    offsets = doubled_offsets(weight, bits)
    assert torch.equal(4 * tokens @ signed.T + 2 * sums + offsets, expected)
    resident = make_resident(weight, bits, "packed")
    if resident.high_bits < 8:
        unsigned = 4 * tokens @ weight.long().T + resident.sum_factor * sums + offsets
        assert torch.equal(unsigned, expected)
