"""The fixed crops of held-out photos that models are judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.degradation.resampling import FloatImage, to_float, to_pixels
from training.degradation.second_order import Degradation
from training.photos.library import held_out_photos

CROP_PX = 192
SEED = 2026
KINDS = ("blind", "clean")
"""Blind: second-order degradation of moderate strength. Clean: bicubic shrinking alone."""


@dataclass(frozen=True)
class Case:
    """One crop.

    Attributes:
        name: the photo's key and a number.
        truth: [1, 3, side, side], 0 ... 1.
        small: its degraded copy [1, 3, side / 4, side / 4], rounded to 8 bits.
    """

    name: str
    truth: Tensor
    small: Tensor


def evaluation_set(
    photos: Path, kind: str, *, per_photo: int = 4, side: int = CROP_PX
) -> list[Case]:
    """``per_photo`` crops of every held-out photo that is large enough, the same every time.

    Args:
        photos: cache of the gathered photos.
        kind: one of ``KINDS``.
        per_photo: the crops of a smaller number are the first ones of a larger.
        side: of a crop, in pixels.
    """
    cases = []
    for index, (name, photo) in enumerate(sorted(held_out_photos(photos).items())):
        if min(photo.shape[:2]) < side:
            continue
        for number in range(per_photo):
            rng = np.random.default_rng((SEED, index, number))
            top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
            truth = to_float(photo[top : top + side, left : left + side])
            drawn = Degradation.draw_for_evaluation(rng)
            small = (drawn if kind == "blind" else Degradation()).apply(truth)
            eight_bits = to_float(to_pixels(small))
            cases.append(Case(f"{name}-{number}", _to_tensor(truth), _to_tensor(eight_bits)))
    return cases


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """At most ``count`` of the cases, spread over all."""
    return list(cases[:: max(1, len(cases) // count)][:count])


def _to_tensor(image: FloatImage) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
