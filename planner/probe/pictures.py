"""Pictures made up from disks, in place of photos: the dead-leaves model.

Disks of random size, colour and shade lie on one another until nothing shows through. With radii
distributed as ``r^-3`` the result has what natural images have in common, edges at every scale and
a spectrum that falls as ``1/f``, so a probe on such pictures needs no data. What a network for
super-resolution is fed is seldom that clean; with a little blur and noise, of another strength in
every picture, they are worn.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

_SMALLEST_RADIUS = 1.0
_OVERSAMPLING = 3
_MOST_DISKS = 20_000
_MOST_BLUR_PX, _MOST_NOISE = 0.8, 0.06


def worn_leaves(height: int, width: int, seed: int) -> Tensor:
    """`dead_leaves`, slightly blurred and noisy: float32 [1, 3, height, width] in 0 ... 1.

    Args:
        height: in px, at least 1.
        width: in px, at least 1.
        seed: equal seeds give equal pictures.
    """
    rng = np.random.default_rng([seed, height, width, 1])
    blur_px, deviation = rng.uniform(0, (_MOST_BLUR_PX, _MOST_NOISE))
    pixels = gaussian_filter(dead_leaves(height, width, seed).numpy(), blur_px, axes=(2, 3))
    pixels += rng.normal(0, deviation, pixels.shape)
    return torch.from_numpy(pixels.clip(0, 1))


def dead_leaves(height: int, width: int, seed: int) -> Tensor:
    """A picture, float32 [1, 3, height, width] in 0 ... 1.

    Args:
        height: in px, at least 1.
        width: in px, at least 1.
        seed: equal seeds give equal pictures.
    """
    rng = np.random.default_rng([seed, height, width])
    rows, columns = _OVERSAMPLING * height, _OVERSAMPLING * width
    pixels = np.zeros((rows, columns, 3), np.float32)
    free = np.ones((rows, columns), bool)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    largest = max(rows, columns) / 2
    # From the front to the back: what is covered already stays as it is.
    for _ in range(_MOST_DISKS):
        if not free.any():
            break
        radius = _radius(rng, _OVERSAMPLING * _SMALLEST_RADIUS, largest)
        cy, cx = rng.uniform(-radius, rows + radius), rng.uniform(-radius, columns + radius)
        inside = free & ((y - cy) ** 2 + (x - cx) ** 2 < radius**2)
        if not inside.any():
            continue
        colour, slope = rng.uniform(0, 1, 3), rng.normal(0, 0.15, (2, 3))
        shade = ((y[inside] - cy) / radius)[:, None] * slope[0]
        shade += ((x[inside] - cx) / radius)[:, None] * slope[1]
        pixels[inside] = np.clip(colour + shade, 0, 1)
        free &= ~inside
    small = pixels.reshape(height, _OVERSAMPLING, width, _OVERSAMPLING, 3).mean((1, 3))
    return torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1), np.float32))[None]


def _radius(rng: np.random.Generator, smallest: float, largest: float) -> float:
    """A radius of density ``r^-3`` between the bounds, by inversion."""
    low, high = smallest**-2, max(largest, smallest * 1.01) ** -2
    return float((low + rng.uniform() * (high - low)) ** -0.5)
