"""Both factor branches of a layer, and its bias, as one low-rank product on plain inputs.

SVD-G is ``up down`` already, but for the scales of 8-bit factors, which go into ``up``. Block
(p, q) of SVD-L is an outer product, so it is one more column of ``up``, zero outside the rows of p,
and one more row of ``down``, zero outside the columns of q.
The rows of ``down`` live in the rotated domain; rotated back they act on the layer's input as it
comes, so the branches need no rotated input, and lose nothing where that input is bfloat16.

The bias is one more column of ``up``, whose coordinate is the constant 1: added to the low-rank
activations ``x downᵀ`` it costs nothing, added to the layer's output a pass over it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from artifacts.codec.factor_pair import FactorPair
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.rotation import CpuRotation

_EVEN_RANK = 16
"""Ranks are filled up with zeros to a multiple of this, for the kernels' sake."""


class LowRankProduct(NamedTuple):
    """What a layer adds to its integer product: ``(x downᵀ + constant) upᵀ``.

    Attributes:
        up: [out, r].
        down: [r, in].
        constant: [r], 1 at the bias and 0 elsewhere.
    """

    up: Tensor
    down: Tensor
    constant: Tensor

    def to(self, dtype: torch.dtype) -> "LowRankProduct":
        """The same in ``dtype``."""
        return LowRankProduct(*(part.to(dtype) for part in self))

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Add the branches' result for ``x`` [tokens, in] to ``y`` [tokens, out]; one dtype.

        The second product adds to ``y`` itself: its result alone would be written and read again.
        """
        torch.addmm(y, F.linear(x, self.down, self.constant), self.up.T, out=y)


class FactorParts(NamedTuple):
    """A layer's factors and bias as its record holds them; see `QuantizedWeight`.

    Small: at ranks 32 and 8 a fifth of what `low_rank_product` makes of them in float32.
    """

    global_factors: FactorPair | None
    local_factors: FactorPair | None
    bias: Tensor | None

    @classmethod
    def of(cls, weight: QuantizedWeight) -> "FactorParts":
        """The parts of ``weight``."""
        return cls(weight.global_factors, weight.local_factors, weight.bias)


def low_rank_product(parts: FactorParts, rotation: CpuRotation) -> LowRankProduct | None:
    """Factors and bias of a layer in float32, or None for a layer without factors."""
    ups, downs = [], []
    if parts.global_factors is not None:
        up, down, scale = parts.global_factors
        ups.append(up.float() if scale is None else up * scale)
        downs.append(down.float())
    if parts.local_factors is not None:
        blocks_up, blocks_down, scale = parts.local_factors
        blocks_up = blocks_up.float() if scale is None else blocks_up * scale[..., None]
        rows, columns, height = blocks_up.shape  # P, Q, s_o
        width = blocks_down.shape[2]
        # The blocks stand on the diagonals of [P, s_o, P, Q] and of [P, Q, Q, s_i].
        up = torch.zeros(rows, height, rows, columns)
        up.diagonal(dim1=0, dim2=2).copy_(blocks_up.permute(2, 1, 0))
        down = torch.zeros(rows, columns, columns, width)
        down.diagonal(dim1=1, dim2=2).copy_(blocks_down.permute(0, 2, 1))
        ups.append(up.view(rows * height, -1))
        downs.append(down.view(rows * columns, -1))
    if not ups:
        return None
    up, down = torch.cat(ups, 1), rotation.fold_into(torch.cat(downs))
    rank = up.shape[1]
    padding = -(rank + 1) % _EVEN_RANK + 1
    up, down = F.pad(up, (0, padding)), F.pad(down, (0, 0, 0, padding))
    constant = torch.zeros(len(down))
    if parts.bias is not None:
        up[:, rank], constant[rank] = parts.bias.float(), 1
    return LowRankProduct(up, down, constant)
