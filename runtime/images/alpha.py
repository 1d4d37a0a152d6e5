"""Colours beside transparency: what cannot be seen must not show anywhere else.

A file may hold any colour where a pixel is invisible. Everything that looks at neighbours
(enlarging, the autoencoder, the network, colour correction) would let it leak into what can be
seen. So invisible pixels take the nearest visible colour as soon as an image is read, and colours
are resized and averaged with their opacity for a weight.
"""

import torch
from scipy import ndimage
from torch import Tensor

from runtime.images.resizing import bicubic, resize

INVISIBLE = 0.5 / 255
"""Opacity below which a pixel counts as invisible: eight bits round it to none."""


def fill_invisible(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Give invisible pixels the colour of the nearest visible one.

    Args:
        rgb: [1, C, H, W]; changed in place.
        alpha: opacity [1, 1, H, W], 0 ... 1.

    Returns:
        ``rgb``; an image without any visible pixel as it was.
    """
    invisible = alpha[0, 0] < INVISIBLE
    if not invisible.any() or invisible.all():
        return rgb
    nearest = ndimage.distance_transform_edt(
        invisible.numpy(), return_distances=False, return_indices=True
    )
    rows, columns = (torch.from_numpy(index)[invisible].long() for index in nearest)
    rgb[0, :, invisible] = rgb[0][:, rows, columns]
    return rgb


def resize_visible(rgb: Tensor, alpha: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Resize [1, 3, H, W] as `resize` does, colours weighted by their opacity.

    Where the result is invisible, weights say nothing, and the colours are the plain ones.

    Args:
        rgb: 0 ... 1.
        alpha: opacity [1, 1, H, W], or None for an opaque image.
        size: height and width of the result.
    """
    plain = resize(rgb, size)
    if alpha is None or rgb.shape[-2:] == tuple(size) or bool((alpha == alpha.flatten()[0]).all()):
        return plain
    weight = bicubic(alpha, size)
    weighted = bicubic(rgb * alpha, size) / weight.clamp(min=INVISIBLE)
    return torch.where(weight < INVISIBLE, plain, weighted).clamp(0, 1)
