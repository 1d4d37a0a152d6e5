import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.bitpack import pack_codes, packed_bytes, plane_widths, unpack_codes

# Written out by hand from the format's text: planes high to low, low end of each byte first, rows
# padded to four bytes.
GOLDEN = [
    # 3 = 2 + 1. High bits 2 1 3 0 0: 0b00_11_01_10; low bits 1 0 1 0 1: 0b10101.
    (3, [[5, 2, 7, 0, 1]], "36000000 15000000"),
    # 5 = 4 + 1. Two rows: high 15 0 8 and 1 9 4; low 1 1 0 and 0 1 0.
    (5, [[31, 1, 16], [2, 19, 8]], "0f080000 91040000 03000000 02000000"),
    # 6 = 4 + 2. High 15 8 1; low 3 1 2: 0b10_01_11.
    (6, [[63, 33, 6]], "8f010000 27000000"),
    # 7 = 4 + 2 + 1, nine codes: the plane of fours runs into a second word.
    (7, [[127, 64, 32, 1, 2, 3, 4, 5, 94]], "8f0400000b000000 03a50300 a9000000"),
    (1, [[1, 0, 0, 0, 0, 0, 0, 1, 1]], "81010000"),
    (2, [[3, 0, 1, 2, 1]], "93010000"),
    (4, [[15, 1, 8]], "1f080000"),
    (8, [[255, 1], [2, 128]], "ff010000 02800000"),
]


@pytest.mark.parametrize(("bits", "codes", "packed"), GOLDEN)
def test_golden_bytes(bits, codes, packed):
    codes = torch.tensor(codes, dtype=torch.uint8)
    expected = bytes.fromhex(packed)
    assert bytes(pack_codes(codes, bits).tolist()) == expected
    assert packed_bytes(bits, *codes.shape) == len(expected)
    unpacked = unpack_codes(torch.tensor(list(expected), dtype=torch.uint8), bits, *codes.shape)
    assert torch.equal(unpacked, codes)


def reference_pack(codes: list[list[int]], bits: int) -> bytes:
    """The format read literally: one bit after the other."""
    packed = b""
    low = bits
    for width in plane_widths(bits):
        low -= width
        for row in codes:
            stream = 0
            for i, code in enumerate(row):
                stream |= (code >> low & (1 << width) - 1) << i * width
            words = -(-len(row) * width // 32)
            packed += stream.to_bytes(4 * words, "little")
    return packed


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 70), st.randoms(use_true_random=False))
def test_equals_the_reference_and_comes_back(bits, rows, columns, random):
    values = [[random.randrange(2**bits) for _ in range(columns)] for _ in range(rows)]
    codes = torch.tensor(values, dtype=torch.uint8)
    packed = pack_codes(codes, bits)
    assert bytes(packed.tolist()) == reference_pack(values, bits)
    assert torch.equal(unpack_codes(packed, bits, rows, columns), codes)


def test_planes_are_powers_of_two_high_to_low():
    widths = {bits: plane_widths(bits) for bits in range(1, 9)}
    assert widths == {
        1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,),
    }  # fmt: skip


def test_non_contiguous_codes():
    codes = torch.randint(0, 32, (9, 7), dtype=torch.uint8)
    assert torch.equal(pack_codes(codes.T, 5), pack_codes(codes.T.contiguous(), 5))


def test_sizes_are_exact_integers_of_any_magnitude():
    assert packed_bytes(7, 2**40, 2**40) == 2**40 * (2**39 + 2**38 + 2**37)


@pytest.mark.parametrize("bits", [0, 9, 16, -1])
def test_bits_out_of_range(bits):
    codes = torch.zeros(1, 1, dtype=torch.uint8)
    for call in (
        lambda: pack_codes(codes, bits),
        lambda: unpack_codes(codes[0], bits, 1, 1),
        lambda: packed_bytes(bits, 1, 1),
    ):
        with pytest.raises(ValueError, match="must be 1 to 8"):
            call()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="code 8 does not fit 3 bits"):
        pack_codes(torch.tensor([[1, 8]], dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="must be uint8"):
        pack_codes(torch.zeros(2, 2, dtype=torch.int32), 3)
    with pytest.raises(ValueError, match=r"uint8 \[8\], not torch.uint8 \(7,\)"):
        unpack_codes(torch.zeros(7, dtype=torch.uint8), 3, 1, 5)
