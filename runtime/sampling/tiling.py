"""Overlapping tiles: run a network of bounded size over a latent of any size.

Tiles cover the latent on a regular stride, the last one flush with the edge. Where tiles overlap,
their results are averaged with Gaussian weights, so that a tile counts most at its centre, where
the network saw the most context. A tile that is as large as the latent is the latent itself.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

WEIGHT_VARIANCE = 0.01
"""Variance of the Gaussian weights along one side, the tile's side being 1 (as published)."""


class Tile(NamedTuple):
    """A rectangle of a latent, in latent pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, latent: Tensor) -> Tensor:
        """Return this part of ``latent`` [..., H, W], as a view."""
        return latent[..., self.top : self.top + self.height, self.left : self.left + self.width]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along one side, in ascending order.

    Args:
        length: the side to cover, at least 1.
        tile: side of a tile; a side no longer than this gets the single start 0.
        overlap: how much two neighbours share, at least; the last two may share more.

    Raises:
        ValueError: ``overlap`` is negative, or leaves a tile no room to advance.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} does not fit tiles of {tile}")
    if length <= tile:
        return [0]
    last = length - tile
    return [*range(0, last, tile - overlap), last]


def tiles_of(height: int, width: int, tile: int, overlap: int, patch: int = 1) -> list[Tile]:
    """Return tiles that cover ``height`` x ``width``, row by row.

    All lie on the grid of patches, so that the network cuts every tile into the same patches that
    it would cut the whole latent into.

    Raises:
        ValueError: a length is not a multiple of ``patch``, or the overlap does not fit.
    """
    for name, value in {
        "height": height,
        "width": width,
        "tile": tile,
        "overlap": overlap,
    }.items():
        if value % patch:
            raise ValueError(f"{name} {value} is not a multiple of the patch size {patch}")
    tops = tile_starts(height, tile, overlap)
    lefts = tile_starts(width, tile, overlap)
    size = (min(tile, height), min(tile, width))
    return [Tile(top, left, *size) for top, left in product(tops, lefts)]


def gaussian_weights(height: int, width: int) -> Tensor:
    """Return positive weights [height, width], float64, symmetric, 1 at the centre of the tile."""

    def along(length: int) -> Tensor:
        centred = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5
        return torch.exp(-(centred**2) / (2 * WEIGHT_VARIANCE))

    return along(height)[:, None] * along(width)


def blend_tiles(results: Iterable[Tensor], like: Tensor, tiles: Sequence[Tile]) -> Tensor:
    """Average the results of tiles into a tensor shaped as ``like``.

    Args:
        results: [..., tile height, tile width] of every tile, in the order of ``tiles``; may be
            computed as they are asked for.
        like: shape [..., H, W], dtype and device of the sums; float32 or wider, because weights
            span eleven orders of magnitude.
        tiles: tiles of one size that together cover ``like``.

    Raises:
        ValueError: there are more or fewer results than tiles.
    """
    if len(tiles) == 1:
        (only,) = results
        return only.to(like.dtype)
    weights = gaussian_weights(tiles[0].height, tiles[0].width).to(like)
    total = torch.zeros_like(like)
    weight_sum = torch.zeros(like.shape[-2:], dtype=like.dtype, device=like.device)
    for tile, result in zip(tiles, results, strict=True):
        tile.of(total).add_(weights * result)
        tile.of(weight_sum).add_(weights)
    return total.div_(weight_sum)  # in place: it may be the latent of a very large image
