"""A low-rank branch of a weight as it is stored: pairs of vectors, each pair with a scale or none.

Rank-1 term k of SVD-G is ``scale[k] * outer(up[:, k], down[k])``, block (p, q) of SVD-L
``scale[p, q] * outer(up[p, q], down[p, q])``. In bfloat16 the singular values are in ``up`` and
there is no scale. In 8 bits both vectors are integers -127 ... 127: half the bytes, so twice the
rank for the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from schemas.bit_widths import UNQUANTIZED

LARGEST_CODE = 127


class FactorPair(NamedTuple):
    """Both sides of a branch.

    Attributes:
        up: [out, r] of SVD-G, [P, Q, s_o] of SVD-L; bfloat16, or int8.
        down: [r, in] and [P, Q, s_i]; of the same dtype.
        scale: float32 [r] and [P, Q] beside int8; None beside bfloat16.
    """

    up: Tensor
    down: Tensor
    scale: Tensor | None

    @property
    def bits(self) -> int:
        """Of a stored number: 8 or 16."""
        return UNQUANTIZED if self.scale is None else 8


def global_product(pair: FactorPair, dtype: torch.dtype = torch.float32) -> Tensor:
    """SVD-G, ``dtype`` [out, in]."""
    up = pair.up.to(dtype)
    return (up if pair.scale is None else up * pair.scale.to(dtype)) @ pair.down.to(dtype)


def local_product(pair: FactorPair, dtype: torch.dtype = torch.float32) -> Tensor:
    """SVD-L, ``dtype`` [out, in]."""
    up = pair.up.to(dtype)
    if pair.scale is not None:
        up = up * pair.scale.to(dtype)[..., None]
    # [P, Q, s_o] x [P, Q, s_i] -> [P, s_o, Q, s_i], which is [out, in] in memory.
    blocks = torch.einsum("pqo,pqi->poqi", up, pair.down.to(dtype))
    return blocks.flatten(2).flatten(0, 1)


def store_factors(up: Tensor, down: Tensor, bits: int) -> FactorPair:
    """Round a branch to what a pack stores of it.

    Args:
        up: float [..., r, n], the vectors of one side.
        down: float [..., r, m], those that belong to them on the other.
        bits: 16 for bfloat16, 8 for integers and a scale.

    Returns:
        The pair, its vectors where the arguments' are, its scales [..., r].
    """
    if bits == UNQUANTIZED:
        return FactorPair(up.bfloat16(), down.bfloat16(), None)
    (up, of_up), (down, of_down) = _integers(up), _integers(down)
    return FactorPair(up, down, of_up * of_down)


def _integers(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors [..., n] to int8, and float32 [...] that multiplies them back."""
    scale = vectors.abs().amax(-1).float() / LARGEST_CODE
    divisor = torch.where(scale > 0, scale, torch.inf)[..., None].to(vectors)
    codes = (vectors / divisor).round_().clamp_(-LARGEST_CODE, LARGEST_CODE)
    return codes.to(torch.int8), scale
