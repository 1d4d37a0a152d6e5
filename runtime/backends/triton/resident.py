"""Weight codes as they lie in the device's memory: one signed byte each, or packed planes.

``int8`` holds ``code - 2^(b - 1)``, which is the level minus one half, ready for the tensor cores.

``packed`` holds unsigned codes in the pack's planes (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2 bits; codes of
7 and 8 bits stay whole bytes), but neighbours in a byte are not neighbours in the row: with planes
of w bits a row is cut into 8 / w slices of equal length S, and byte j holds the elements j, S + j,
2 S + j ..., low bits first. Unpacking a run of bytes so gives 8 / w whole runs of the row, and no
element has to be moved within a tile. In a weight of two planes the slices of the wider plane are
made of whole slices of the narrower one. Slices are padded with zeros to a multiple of 32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Residency = Literal["int8", "packed"]

_SLICE_MULTIPLE = 32
"""Integer tensor cores multiply at least 32 elements of a row at a time."""
_PLANES: dict[int, tuple[int, ...]] = {
    1: (1,),
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
}
"""Plane widths by bits of a code; the others stay whole bytes."""


@dataclass(frozen=True, eq=False)
class ResidentCodes:
    """Weight codes [out, in] in device memory.

    Attributes:
        high: int8 [out, row] of whole bytes, or uint8 [out, S] of the wider plane.
        low: uint8 [out, S'] of the narrower plane, or None.
        high_bits: 8 for whole bytes, otherwise the wider plane's width.
        low_bits: the narrower plane's width, 0 without.
        sum_factor: what the token sum is multiplied by in a doubled product, see `doubled_offsets`.
    """

    high: Tensor
    low: Tensor | None
    high_bits: int
    low_bits: int
    sum_factor: int

    @property
    def slice_length(self) -> int:
        """Bytes of a row of ``high``."""
        return self.high.shape[1]

    @property
    def bytes(self) -> int:
        """Memory of the codes."""
        return self.high.nbytes + (0 if self.low is None else self.low.nbytes)


def make_resident(codes: Tensor, bits: int, residency: Residency) -> ResidentCodes:
    """Arrange ``codes`` uint8 [out, in] of ``bits`` bits."""
    out_features, in_features = codes.shape
    half = 2 ** (bits - 1)
    if residency == "int8" or bits not in _PLANES:
        row = _round_up(in_features, _SLICE_MULTIPLE)
        high = torch.zeros(out_features, row, dtype=torch.int8, device=codes.device)
        high[:, :in_features] = (codes.to(torch.int16) - half).to(torch.int8)
        return ResidentCodes(high, None, 8, 0, sum_factor=2)
    widths = _PLANES[bits]
    narrow = widths[-1]
    length = _round_up(-(-in_features * narrow // 8), _SLICE_MULTIPLE)
    high_length = length * widths[0] // narrow
    sum_factor = 2 - 4 * half
    if len(widths) == 1:
        return ResidentCodes(_pack(codes, narrow, length), None, narrow, 0, sum_factor)
    low = _pack(codes & (1 << narrow) - 1, narrow, length)
    high = _pack(codes >> narrow, widths[0], high_length)
    return ResidentCodes(high, low, widths[0], narrow, sum_factor)


def signed_codes(resident: ResidentCodes, bits: int, in_features: int) -> Tensor:
    """Undo `make_resident`: int8 [out, in] of ``code - 2^(bits - 1)``."""
    if resident.high_bits == 8:
        return resident.high[:, :in_features]
    codes = _unpack(resident.high, resident.high_bits)
    if resident.low is not None:
        codes = codes << resident.low_bits | _unpack(resident.low, resident.low_bits)
    return (codes[:, :in_features].to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)


def doubled_offsets(codes: Tensor, bits: int) -> Tensor:
    """What every output channel adds to a doubled product, int32 [out].

    With s = code - 2^(bits - 1), a level is s + 1/2. For activations a and weights w over K inputs

        sum (2 a + 1) (2 w + 1) = 4 sum a w + 2 sum a + 2 sum w + K

    and where the kernel multiplies by unsigned codes c = w + h instead,

        = 4 sum a c + (2 - 4 h) sum a + 2 sum w + K.

    The last two terms are returned; ``sum_factor`` is the factor of ``sum a``. All of it fits 32
    bits for K up to 32,767: the largest magnitude is (2 * 128)^2 K / 4 * 2.
    """
    signed = codes.to(torch.int32) - 2 ** (bits - 1)
    return (2 * signed.sum(1, dtype=torch.int32) + codes.shape[1]).to(torch.int32)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _pack(values: Tensor, width: int, length: int) -> Tensor:
    """Values below 2^width, uint8 [out, in] -> uint8 [out, length]."""
    slices = 8 // width
    padded = values.new_zeros(len(values), slices * length)
    padded[:, : values.shape[1]] = values
    packed = values.new_zeros(len(values), length)
    for index, part in enumerate(padded.split(length, dim=1)):
        packed |= part << index * width
    return packed


def _unpack(packed: Tensor, width: int) -> Tensor:
    """Undo `_pack`, padding included."""
    mask = (1 << width) - 1
    return torch.cat([packed >> index * width & mask for index in range(8 // width)], dim=1)
