"""The rotation of comfy-kitchen's layouts (ConvRot), and two 4-bit codes in a byte."""

import torch
from torch import Tensor

LARGEST_BLOCK = 256
SMALLEST_BLOCK = 4


def largest_block(columns: int) -> int | None:
    """How many inputs are rotated together: a power of four up to 256 that divides ``columns``.

    None where there is none.
    """
    block = LARGEST_BLOCK
    while block >= SMALLEST_BLOCK and columns % block:
        block //= 4
    return block if block >= SMALLEST_BLOCK else None


def rotated(weight: Tensor, block: int) -> Tensor:
    """``weight`` [out, in] times the block-diagonal H; H is its own inverse."""
    out = weight.shape[0]
    hadamard = _hadamard(block).to(weight)
    return (weight.reshape(out, -1, block) @ hadamard).reshape(weight.shape)


def pack_pairs(codes: Tensor) -> Tensor:
    """Int8 [out, in], of which 4 bits count -> int8 [out, in / 2], the even one in the low half."""
    low, high = codes[:, ::2], codes[:, 1::2]
    return (low & 15) | (high << 4)


def unpack_pairs(packed: Tensor) -> Tensor:
    """The inverse of `pack_pairs` for codes -8 ... 7; right shifts of int8 keep the sign."""
    low, high = (packed << 4) >> 4, packed >> 4
    return torch.stack([low, high], 2).flatten(1)


def _hadamard(size: int) -> Tensor:
    """Orthonormal and symmetric [size, size], for a power of four."""
    kernel = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    matrix = kernel
    while len(matrix) < size:
        matrix = torch.kron(matrix, kernel)
    return matrix / size**0.5
