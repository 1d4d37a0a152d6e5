"""Where strips of a large picture meet: the picture whole, in strips, and how they differ.

    python -m benchmarks.seams -o docs/results/seams.jpg

A held-out photo, a little taller than one strip, goes through the whole bundled model both ways,
with the strips that large pictures get. Differences are shown AMPLIFIED times; ticks mark the seam.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.large_image import MODEL
from benchmarks.photos import held_out_photos
from runtime import strips
from runtime.images.pixel_form import PixelForm
from runtime.images.resizing import SCALE
from runtime.loader import load_pipeline
from runtime.pipeline import Pipeline
from runtime.upscale import upscale, upscale_in_strips

WIDTH_PX = 96
"""Of the input."""
AMPLIFIED = 64
TICK_PX = 12
NEAR_PX = 2
"""Rows on both sides of a seam that count as being at it."""
FORM = PixelForm(gray=False, alpha=False, flattened=False, deep=True, notes=())
WHITE = 65535


@dataclass(frozen=True, eq=False)
class Both:
    """One picture, enlarged both ways.

    Attributes:
        whole: [H, W, 3], 0 ... 1, float64.
        cut: the same, in strips.
        seams: rows with which a strip begins, but for the first.
    """

    whole: NDArray[np.float64]
    cut: NDArray[np.float64]
    seams: tuple[int, ...]

    @property
    def difference(self) -> NDArray[np.float64]:
        """Absolute [H, W, 3], in 255ths of white."""
        return 255 * np.abs(self.whole - self.cut)

    def facts(self) -> dict[str, Any]:
        """Mean and greatest difference, in 255ths of white, everywhere and at the seams."""
        near = [row + d for row in self.seams for d in range(-NEAR_PX, NEAR_PX)]
        return {
            "result_px": [self.whole.shape[1], self.whole.shape[0]],
            "seams_at_row": [*self.seams],
            "mean_difference_255ths": round(float(self.difference.mean()), 4),
            "mean_difference_at_seams_255ths": round(float(self.difference[near].mean()), 4),
            "greatest_difference_255ths": round(float(self.difference.max()), 2),
        }

    def picture(self) -> Image.Image:
        """Whole, in strips, and the amplified difference, from left to right."""
        amplified = np.minimum(AMPLIFIED * self.difference / 255, 1)
        for row in self.seams:
            amplified[row, :TICK_PX] = amplified[row, -TICK_PX:] = 1
        panels = np.concatenate([self.whole, self.cut, amplified], axis=1)
        return Image.fromarray(np.uint8(np.rint(255 * panels.clip(0, 1))))


def both_ways(pipeline: Pipeline, rgb: NDArray[np.float32], *, steps: int | None) -> Both:
    """Enlarge ``rgb`` [H, W, 3], 0 ... 1, whole and in strips, from the same noise."""
    chosen = replace(pipeline.sampling, color_fix="wavelet")
    if steps is not None:
        chosen = replace(chosen, steps=steps)
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    whole = FORM.codes(upscale(pipeline, image, chosen), None)
    cut = upscale_in_strips(pipeline, image, chosen, FORM)
    seams = range(strips.STRIP_PX, SCALE * rgb.shape[0], strips.STRIP_PX)
    return Both(whole=whole / WHITE, cut=cut / WHITE, seams=(*seams,))


def main() -> None:
    """Write the picture, print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="the model's own unless given")
    arguments = parser.parse_args()
    height = strips.STRIP_PX // SCALE + strips.MARGIN_PX // SCALE
    photo = held_out_photos()["astronaut"][:height, 180 : 180 + WIDTH_PX]
    pipeline = load_pipeline(pack=None, full_precision=MODEL, device="cpu", dtype="float32")
    both = both_ways(pipeline, photo.astype(np.float32), steps=arguments.steps)
    both.picture().save(arguments.out, quality=85)
    print(json.dumps(both.facts(), indent=1))


if __name__ == "__main__":
    main()
