"""Both factor branches of a layer, block by block, for the compiled kernels.

A token's coordinates are its products with the rows of ``down``: first SVD-G's r, then SVD-L's, P
times Q of them, that of block (p, q) at p Q + q. An output channel in block row p reads the r
and the Q of that row, and nothing else: ``up`` is stored for panels of channels, each with the rows
that its channels read. The scales of 8-bit factors are in ``up`` already, which is float32.
"""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.arguments import DownArguments
from runtime.backends.cpu.kernels import Kernels, address, threads


@dataclass(frozen=True, eq=False)
class Factors:
    """``up`` and ``down`` in the kernels' order; `native/gemm.h` and `native/factors.h` say which.

    Attributes:
        rank: coordinates of both branches.
        global_rank: of SVD-G.
        local_count: local coordinates that one panel of channels reads.
        local_begin: int64 [panels], the first of those.
        up: float32 [panels, global_rank + local_count, panel].
    """

    rank: int
    global_rank: int
    local_count: int
    local_begin: Tensor
    up: Tensor
    _pieces: Tensor  # int64 [pieces, 6]: `DownPiece`
    _down: Tensor  # float32, one piece after the other
    _kernels: Kernels

    @classmethod
    def of(cls, weight: QuantizedWeight, kernels: Kernels) -> "Factors | None":
        """The factors of a layer; None for a layer without."""
        panel = kernels.panel
        panels = -(-weight.out_features // panel)
        pieces: list[tuple[int, ...]] = []
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        local_begin, local_count, blocks = torch.zeros(panels, dtype=torch.int64), 0, 0
        if weight.global_factors is not None:
            up, down, scale = weight.global_factors
            up = up.float() if scale is None else up * scale
            rows = F.pad(up, (0, 0, 0, -weight.out_features % panel))
            ups.append(rows.view(panels, panel, -1).transpose(1, 2))
            for start in range(0, weight.global_rank, panel):
                some = down[start : start + panel]
                place = sum(map(torch.Tensor.numel, downs))
                pieces.append((0, weight.in_features, start, 1, len(some), place))
                downs.append(_columns_first(some, panel))
        if weight.local_factors is not None:
            up, down, scale = weight.local_factors
            up = up.float() if scale is None else up * scale[..., None]
            local_begin, up = _local_up(up, weight.out_features, panel)
            local_count = up.shape[1]
            ups.append(up)
            height, columns, width = down.shape  # P, Q, s_i
            blocks = height * columns
            for q in range(columns):
                for start in range(0, height, panel):
                    some = down[start : start + panel, q]
                    first = weight.global_rank + start * columns + q
                    place = sum(map(torch.Tensor.numel, downs))
                    pieces.append((q * width, width, first, columns, len(some), place))
                    downs.append(_columns_first(some, panel))
        if not ups:
            return None
        return cls(
            rank=weight.global_rank + blocks,
            global_rank=weight.global_rank,
            local_count=local_count,
            local_begin=local_begin,
            up=torch.cat(ups, 1).contiguous(),
            _pieces=torch.tensor(pieces),
            _down=torch.cat([piece.flatten() for piece in downs]),
            _kernels=kernels,
        )

    def coordinates(self, z: Tensor) -> Tensor:
        """Of rotated tokens ``z``, contiguous float32 [tokens, in] -> [tokens, rank]."""
        result = torch.empty(len(z), self.rank)
        self._kernels.down(
            DownArguments(
                rotated=address(z),
                tokens=len(z),
                size=z.shape[1],
                down=address(self._down),
                pieces=ctypes.c_void_p(address(self._pieces)),
                piece_count=len(self._pieces),
                coordinates=address(result),
                rank=self.rank,
                threads=threads(),
            )
        )
        return result

    def add_to(self, y: Tensor, coordinates: Tensor) -> None:
        """Add ``coordinates upᵀ`` to ``y`` [tokens, out], with torch's operations."""
        local = coordinates[:, self.global_rank :]
        for panel, (up, begin) in enumerate(zip(self.up, self.local_begin.tolist(), strict=True)):
            read = torch.cat(
                [coordinates[:, : self.global_rank], local[:, begin : begin + self.local_count]], 1
            )
            channels = y[:, panel * up.shape[1] :][:, : up.shape[1]]
            channels += (read @ up)[:, : channels.shape[1]]


def _columns_first(rows: Tensor, panel: int) -> Tensor:
    """[n, columns] -> float32 [columns, panel], filled up with zeros."""
    return F.pad(rows.float(), (0, 0, 0, panel - len(rows))).T.contiguous()


def _local_up(local_up: Tensor, out_features: int, panel: int) -> tuple[Tensor, Tensor]:
    """SVD-L's ``up``, float32 [P, Q, s_o], by panels of channels.

    Returns:
        The first local coordinate of every panel, int64 [panels], and float32 [panels, n Q, panel],
        where n is the largest number of block rows that a panel touches.
    """
    rows, columns, height = local_up.shape
    first = torch.arange(0, out_features, panel)
    last = (first + panel - 1).clamp_(max=out_features - 1)
    touched = int((last // height - first // height).max()) + 1
    begin = (first // height).clamp_(max=rows - touched)  # [panels]
    block = begin[:, None] + torch.arange(touched)  # [panels, n]
    channel = (first[:, None] + torch.arange(panel)).clamp_(max=out_features - 1)
    own = channel[:, None] // height == block[..., None]  # [panels, n, panel]
    inside = (channel % height)[:, None].expand_as(own)
    up = local_up[block[..., None].expand_as(own), :, inside] * own[..., None]
    # [panels, n, panel, Q] -> [panels, n Q, panel]
    return begin * columns, up.transpose(2, 3).flatten(1, 2)
