"""The fixed crops of held-out photos that models are judged on."""

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
        truth: [1, 3, CROP_PX, CROP_PX], 0 ... 1.
        small: its degraded copy [1, 3, CROP_PX / 4, CROP_PX / 4], rounded to 8 bits.
    """

    name: str
    truth: Tensor
    small: Tensor


def evaluation_set(photos: Path, kind: str, *, per_photo: int = 4) -> list[Case]:
    """``per_photo`` crops of every held-out photo, the same every time.

    Args:
        photos: cache of the gathered photos.
        kind: one of ``KINDS``.
        per_photo: the crops of a smaller number are the first ones of a larger.
    """
    cases = []
    for index, (name, photo) in enumerate(sorted(held_out_photos(photos).items())):
        for number in range(per_photo):
            rng = np.random.default_rng((SEED, index, number))
            top, left = (int(rng.integers(side - CROP_PX + 1)) for side in photo.shape[:2])
            truth = to_float(photo[top : top + CROP_PX, left : left + CROP_PX])
            drawn = Degradation.draw_for_evaluation(rng)
            small = (drawn if kind == "blind" else Degradation()).apply(truth)
            eight_bits = to_float(to_pixels(small))
            cases.append(Case(f"{name}-{number}", _to_tensor(truth), _to_tensor(eight_bits)))
    return cases


def _to_tensor(image: FloatImage) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
