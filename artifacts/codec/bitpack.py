"""Codes of 1 to 8 bits to bytes and back, in the layout of the pack format.

A b-bit code is split into planes of power-of-two width, the high bits first: 3 = 2 + 1,
5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1; 1, 2, 4 and 8 are one plane. A plane is row-major over
[out_features, in_features]: element i of a row takes the bits [i * width, (i + 1) * width) of the
row, counted from the low end of its first byte. Every row is padded with zeros to whole 32-bit
words, and one plane follows the other.
"""

import torch
from torch import Tensor

_WORD_BITS = 32


def plane_widths(bits: int) -> tuple[int, ...]:
    """Widths of the planes of a ``bits``-bit code, high bits first.

    Raises:
        ValueError: ``bits`` is not within 1 ... 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"codes of {bits} bits; it must be 1 to 8")
    return tuple(width for width in (8, 4, 2, 1) if bits & width)


def packed_bytes(bits: int, out_features: int, in_features: int) -> int:
    """Size in bytes of the packed codes of an [out_features, in_features] weight."""
    return out_features * sum(_row_bytes(width, in_features) for width in plane_widths(bits))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack ``codes`` uint8 [out_features, in_features] into uint8 [packed_bytes].

    Raises:
        ValueError: wrong dtype or rank, a code that does not fit, or ``bits`` out of range.
    """
    widths = plane_widths(bits)
    if codes.dtype != torch.uint8 or codes.dim() != 2:
        raise ValueError(f"codes must be uint8 [out, in], not {codes.dtype} {tuple(codes.shape)}")
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit {bits} bits")
    planes = []
    low_bit = bits
    for width in widths:
        low_bit -= width
        plane = codes if len(widths) == 1 else codes >> low_bit & (1 << width) - 1
        planes.append(_pack_plane(plane, width))
    return torch.cat(planes)


def unpack_codes(packed: Tensor, bits: int, out_features: int, in_features: int) -> Tensor:
    """Undo `pack_codes`: uint8 [packed_bytes] -> uint8 [out_features, in_features].

    Raises:
        ValueError: wrong dtype or size, or ``bits`` out of range.
    """
    expected = packed_bytes(bits, out_features, in_features)
    if packed.dtype != torch.uint8 or packed.shape != (expected,):
        raise ValueError(
            f"packed codes must be uint8 [{expected}], not {packed.dtype} {tuple(packed.shape)}"
        )
    codes = packed.new_zeros((out_features, in_features))
    start = 0
    for width in plane_widths(bits):
        end = start + out_features * _row_bytes(width, in_features)
        # Shifting what is there already makes room for the plane below it.
        codes <<= width if start else 0
        codes |= _unpack_plane(packed[start:end].view(out_features, -1), width, in_features)
        start = end
    return codes


def _row_bytes(width: int, in_features: int) -> int:
    return -(-in_features * width // _WORD_BITS) * (_WORD_BITS // 8)


def _pack_plane(values: Tensor, width: int) -> Tensor:
    """[out, in] with values below ``2**width`` -> uint8 [out * row bytes]."""
    out_features, in_features = values.shape
    per_byte = 8 // width
    row_bytes = _row_bytes(width, in_features)
    if in_features != row_bytes * per_byte:
        padded = values.new_zeros((out_features, row_bytes * per_byte))
        padded[:, :in_features] = values
        values = padded
    groups = values.reshape(out_features, row_bytes, per_byte)
    packed = groups[..., 0].clone()
    for position in range(1, per_byte):
        packed |= groups[..., position] << width * position
    return packed.flatten()


def _unpack_plane(rows: Tensor, width: int, in_features: int) -> Tensor:
    """uint8 [out, row bytes] -> uint8 [out, in_features]."""
    per_byte = 8 // width
    values = rows.new_empty((*rows.shape, per_byte))
    for position in range(per_byte):
        values[..., position] = rows >> width * position & (1 << width) - 1
    return values.flatten(1)[:, :in_features]
