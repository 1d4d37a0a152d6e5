"""Pixels as arrays, for callers that keep their images in memory."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import ImageError


def from_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels uint8 [H, W, 3] -> float32 [1, 3, H, W], 0 ... 1.

    Raises:
        ImageError: another shape or dtype, or no pixel at all.
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ImageError(
            f"pixels must be uint8 [height, width, 3], not {array.dtype} {list(array.shape)}"
        )
    # A copy: torch warns of arrays that cannot be written to, such as PIL's.
    rgb = torch.from_numpy(np.array(array, order="C")).permute(2, 0, 1)[None]
    return rgb.float() / 255


def to_pixels(rgb: Tensor) -> NDArray[np.uint8]:
    """Float [1, 3, H, W], 0 ... 1 -> pixels uint8 [H, W, 3], rounded."""
    codes = rgb[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    return codes.permute(1, 2, 0).cpu().numpy()
