"""Both factor branches of a layer, compact: no zeros are stored, and few numbers per token remain.

SVD-L's block (p, q) is an outer product, so one number per token and block suffices: the token's
part q times the block's ``down``. A token's low-rank activations are the r numbers of SVD-G and
then those P Q numbers, p-major. ``up`` is [out, r + Q]: channel n in block row p holds SVD-G's row
and, for every q, its entry in block (p, q); those meet the numbers of p alone.

``down`` comes in two forms:

- compact [r + P, in] on rotated tokens: SVD-G's rows, then one row per p with the vectors of its
  blocks side by side. As small as the pack's, but rotated tokens have to be written and read again;
- folded [r + P Q, in] on tokens as they come: every row by itself, rotated back. More memory, one
  ordinary matrix product and no rotated tokens.

8-bit factors are held as bfloat16 too, which has all their integers. Their scales go with the
low-rank activations; where ``down`` is folded, and so rounded anyway, they are in its rows.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.codec.factor_pair import FactorPair
from artifacts.codec.hadamard import Rotation

_WIDTH_MULTIPLE = 8
"""Rows of low-rank activations start at multiples of 16 bytes."""


@dataclass(frozen=True)
class FactorShape:
    """Sizes of a layer's factors.

    Attributes:
        global_rank: r, 0 without SVD-G.
        rows, columns: P and Q, 0 without SVD-L.
    """

    global_rank: int
    rows: int
    columns: int

    @property
    def rank(self) -> int:
        """Low-rank activations of a token, r + P Q."""
        return self.global_rank + self.rows * self.columns

    @property
    def width(self) -> int:
        """The same with padding."""
        return -(-self.rank // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE


class Factors(nn.Module):
    """SVD-G and SVD-L of one layer.

    Args:
        global_factors: SVD-G, or None.
        local_factors: SVD-L, or None.
        fold: how rows of the rotated domain become rows that act on plain tokens; None for the
            compact form.
    """

    up: Tensor
    down: Tensor
    scale: Tensor | None

    def __init__(
        self,
        global_factors: FactorPair | None,
        local_factors: FactorPair | None,
        fold: "Fold | None",
    ) -> None:
        super().__init__()
        ups, downs, scales = [], [], []
        rank = rows = columns = 0
        if global_factors is not None:
            rank = global_factors.down.shape[0]
            ups.append(global_factors.up)
            downs.append(global_factors.down)
            scales.append(global_factors.scale)
        if local_factors is not None:
            up, down, _ = local_factors
            rows, columns = up.shape[:2]
            ups.append(up.transpose(1, 2).flatten(0, 1))  # [P, s_o, Q] -> [out, Q]
            downs.append(down.flatten(1) if fold is None else _spread(down))
            scales.append(local_factors.scale)
        self.shape = FactorShape(rank, rows, columns)
        self.folded = fold is not None
        up, down = torch.cat(ups, 1).bfloat16(), torch.cat(downs).bfloat16()
        found = [scale.flatten() for scale in scales if scale is not None]
        scale = torch.cat(found) if found else None
        if fold is not None:
            whole = down.double() if scale is None else down.double() * scale[:, None]
            scale = None
            padding = down.new_zeros(self.shape.width - len(down), down.shape[1])
            down = torch.cat([fold(whole).to(down.dtype), padding])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("up", up.contiguous(), persistent=False)
        self.register_buffer("down", down.contiguous(), persistent=False)
        self._down_as: dict[torch.dtype, Tensor] = {}

    @property
    def bytes(self) -> int:
        """Memory of the factors."""
        return self.up.nbytes + self.down.nbytes

    def folded_product(self, values: Tensor) -> Tensor:
        """Tokens [..., in] -> low-rank activations [M, width], by the folded form.

        The compact form has a kernel, see `launch.low_rank_activations`.
        """
        activations = F.linear(values, self._folded_in(values.dtype))
        return activations.reshape(-1, self.shape.width)

    def up_product(self, activations: Tensor) -> Tensor:
        """Low-rank activations [M, width] -> [M, out], in plain torch."""
        rank, rows, columns = (
            self.shape.global_rank,
            self.shape.rows,
            self.shape.columns,
        )
        up = self.up.to(activations)
        y = activations[:, :rank] @ up[:, :rank].T
        if rows:
            numbers = activations[:, rank : self.shape.rank].unflatten(1, (rows, columns))
            blocks = up[:, rank:].unflatten(0, (rows, -1))  # [P, s_o, Q]
            y = y + torch.einsum("mpq,poq->mpo", numbers, blocks).flatten(1)
        return y

    def _folded_in(self, dtype: torch.dtype) -> Tensor:
        """``down`` in ``dtype``, converted when first asked for."""
        if dtype == self.down.dtype:
            return self.down
        if dtype not in self._down_as or self._down_as[dtype].device != self.down.device:
            self._down_as[dtype] = self.down.to(dtype)
        return self._down_as[dtype]


@dataclass(frozen=True, eq=False)
class Fold:
    """Takes rows of the rotated domain back to where tokens come from.

    Attributes:
        rotation: of the layer.
        signs: float32 [in], or None.
        smoothing: float32 [in], or None.
    """

    rotation: Rotation
    signs: Tensor | None
    smoothing: Tensor | None

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [r, in], float64; a row times z equals the result times x."""
        plain = self.rotation.invert(rows, self.signs)
        return plain if self.smoothing is None else plain / self.smoothing.to(plain)


def _spread(local_down: Tensor) -> Tensor:
    """[P, Q, s_i] -> [P Q, Q s_i]: block (p, q) alone in its row, zero outside the columns of q."""
    rows, columns, length = local_down.shape
    whole = local_down.new_zeros(rows, columns, columns, length)
    whole.diagonal(dim1=1, dim2=2).copy_(local_down.permute(0, 2, 1))
    return whole.view(rows * columns, columns * length)
