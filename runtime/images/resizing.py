"""Sizes of images: bicubic resizing, padding, and the size at which a network sees an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 4
"""Enlargement per side; the network is trained for this one."""

MAX_STRETCH = 4
"""Limit on raising short sides (ours): the long side is not scaled up past this many times
``min_side_px``. A strip of 1 x 1000 px would otherwise become 512 x 512,000; it is padded."""


def working_size(height: int, width: int, min_side_px: int) -> tuple[int, int]:
    """Return height and width at which the network sees an image meant to be height x width px.

    The shorter side is raised to ``min_side_px``, both sides in proportion, as far as
    `MAX_STRETCH` lets the longer one grow.
    """
    scale = max(1.0, min_side_px / min(height, width))
    scale = min(scale, max(1.0, MAX_STRETCH * min_side_px / max(height, width)))
    return round(height * scale), round(width * scale)


def resize(image: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize [1, C, H, W] to ``size`` = (height, width), bicubic, clamped to 0 ... 1."""
    if image.shape[-2:] == tuple(size):
        return image.clamp(0, 1)
    return bicubic(image, size).clamp(0, 1)


def bicubic(image: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize [1, C, H, W] to ``size`` = (height, width); overshoots at edges, as bicubic does.

    ``antialias`` chooses the kernel of image editors (a = -0.5) and widens it when shrinking.
    """
    return F.interpolate(
        image, size=tuple(size), mode="bicubic", align_corners=False, antialias=True
    )


def pad_to_multiple(image: Tensor, unit: int, *, at_least: int) -> Tensor:
    """Extend [1, C, H, W] to the right and below, to multiples of ``unit`` no less than a size."""
    height, width = (math.ceil(max(side, at_least) / unit) * unit for side in image.shape[-2:])
    return pad_to(image, height, width)


def pad_to(image: Tensor, height: int, width: int) -> Tensor:
    """Extend [1, C, H, W] to the right and below, to a size no less than its own.

    The new pixels mirror the image; where it is too small to be mirrored, its edge is repeated.
    """
    below, right = height - image.shape[-2], width - image.shape[-1]
    for side, padding in (
        (image.shape[-1], (0, right, 0, 0)),
        (image.shape[-2], (0, 0, 0, below)),
    ):
        if any(padding):
            mirrored = max(padding) < side
            image = F.pad(image, padding, mode="reflect" if mirrored else "replicate")
    return image
