"""Random crops of photos, reproducible from a seed."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.degradation.resampling import Pixels

SMALLEST_ZOOM = 0.5
FULL_SIZE_SHARE = 0.4
"""Crops taken at the photo's own size; the others are shrunk by a random factor."""


class Crops:
    """Square crops of many photos.

    Args:
        photos: uint8 [H, W, 3] each.
        seed: of all draws.

    Photos are drawn in proportion to the square root of their area: a large one has more to show,
    but not so much more that it may crowd out the small ones.
    """

    def __init__(self, photos: Sequence[Pixels], seed: int) -> None:
        self.photos, self.seed = photos, seed
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in photos], np.float64)
        self._shares = np.sqrt(areas) / np.sqrt(areas).sum()

    def generator(self, *stream: int) -> np.random.Generator:
        """Random numbers of their own for every ``stream``, for example (crop size, step)."""
        return np.random.default_rng((self.seed, *stream))

    def draw(self, size: int, rng: np.random.Generator) -> Pixels:
        """One crop [size, size, 3]."""
        photo = self.photos[rng.choice(len(self.photos), p=self._shares)]
        return random_crop(photo, size, rng)

    def batch(self, count: int, size: int, step: int) -> Tensor:
        """Crops [count, 3, size, size] of ``step``, values -1 ... 1."""
        rng = self.generator(size, step)
        return to_batch([self.draw(size, rng) for _ in range(count)])


def random_crop(photo: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """A crop [size, size, 3], randomly mirrored and turned, from a photo at 50 ... 100 % size."""
    shortest = min(photo.shape[:2])
    zoom = 1.0 if rng.random() < FULL_SIZE_SHARE else rng.uniform(SMALLEST_ZOOM, 1.0)
    side = min(round(size / zoom), shortest)
    top = rng.integers(photo.shape[0] - side + 1)
    left = rng.integers(photo.shape[1] - side + 1)
    crop = photo[top : top + side, left : left + side]
    if side != size:
        picture = Image.fromarray(np.ascontiguousarray(crop))
        crop = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))
    crop = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(crop[:, :: rng.choice((-1, 1))])


def to_batch(images: Sequence[Pixels]) -> Tensor:
    """uint8 [H, W, 3] pictures -> one tensor [B, 3, H, W], values -1 ... 1."""
    return to_values(torch.from_numpy(np.stack(images)), torch.device("cpu"))


def to_values(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] -> [B, 3, H, W] on ``device``, values -1 ... 1."""
    there = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return there.float().div(127.5).sub(1).contiguous()
