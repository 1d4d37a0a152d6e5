"""Resizing in floating point, with one of several filters."""

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatImage = npt.NDArray[np.float32]
"""A picture [H, W, 3], values 0 ... 1."""

Pixels = npt.NDArray[np.uint8]
"""A picture [H, W, 3] of 8 bits."""

FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""Area, bilinear, bicubic; each is widened when it shrinks, so that nothing is aliased."""
BICUBIC = FILTERS.index(Image.Resampling.BICUBIC)


def resize(image: FloatImage, size: tuple[int, int], resampling: int = BICUBIC) -> FloatImage:
    """Resize [H, W, 3] to (height, width) by ``FILTERS[resampling]``, clipped to 0 ... 1."""
    if image.shape[:2] == size:
        return image
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
            (size[1], size[0]), FILTERS[resampling]
        )
        for c in range(3)
    ]
    return np.clip(np.stack([np.asarray(c) for c in channels], axis=2), 0, 1)


def to_float(pixels: Pixels) -> FloatImage:
    """8 bits -> 0 ... 1."""
    return np.asarray(pixels, np.float32) / np.float32(255)


def to_pixels(image: FloatImage) -> Pixels:
    """0 ... 1 -> 8 bits, rounded."""
    return np.asarray(np.rint(image * 255), np.uint8)
