"""Seams between tiles, looked for in crops that take nine of them.

The crops of the main tables fill one tile. Only the network works in tiles; the others show what
the measure finds where there is none.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo_quality.flaws import LATENT_PX, seam_ratio
from benchmarks.demo_quality.methods import Method
from benchmarks.demo_quality.pictures import Pictures
from runtime.sampling.tiling import tile_starts
from training.evaluation_set import Case, evaluation_set, spread

SIDE_PX = 448
TILE, OVERLAP = 48, 8
"""The bundled model's own, in latent pixels."""


@dataclass(frozen=True)
class Seams:
    """What is measured, and on what.

    Attributes:
        cases: one crop of a photo.
        borders: where tiles begin or end inside a crop, in pixels.
    """

    cases: list[Case]
    borders: list[int]


def seam_cases(photos: Path, kind: str, count: int) -> Seams:
    """``count`` crops of as many photos, spread over all that are large enough."""
    cases = evaluation_set(photos, kind, per_photo=1, side=SIDE_PX)
    chosen = spread(cases, count)
    return Seams(chosen, tile_borders(SIDE_PX, TILE, OVERLAP))


def tile_borders(side_px: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin or end inside a side, in pixels; ``tile`` and ``overlap`` are latent."""
    length = side_px // LATENT_PX
    starts = tile_starts(length, tile, overlap)
    borders = {*starts, *(start + tile for start in starts)} - {0, length}
    return [LATENT_PX * border for border in sorted(borders)]


def measure(
    arguments: argparse.Namespace, methods: Sequence[Method], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """The error's jump at tile borders by that elsewhere, crop by crop, for every method."""
    if not arguments.seam_photos:
        return {}
    found = seam_cases(arguments.photos, arguments.kind, arguments.seam_photos)
    pictures = Pictures(arguments.work / "seams", found.cases, f"{arguments.kind} {SIDE_PX}")
    ratios = {}
    for method in methods:
        pictures.make(method, say)
        ratios[method.label] = [
            seam_ratio(picture[0].numpy(), case.truth[0].numpy(), found.borders)
            for picture, case in zip(pictures.of(method), found.cases, strict=True)
        ]
    return ratios
