"""Colour correction: give an upscaled image the colours of the image it was made from.

A network trained for detail may let colours drift. All three corrections are pure functions
on images [B, 3, H, W] of one range and size:

- ``adain`` (Huang & Belongie 2017, arXiv 1703.06868): every channel takes the mean and the standard
  deviation of the reference.
- ``wavelet``: the low frequencies of the reference replace those of the image; detail stays.
- ``none``.
"""

import torch.nn.functional as F
from torch import Tensor

from schemas.manifest import ColorFix

WAVELET_LEVELS = 5
"""Blur radii of 1, 2, 4, 8 and 16 px: together what a 5-level à-trous transform calls low."""

VARIANCE_FLOOR = 1e-5
"""Keeps the division in `adain` finite on a flat image."""

WEIGHT_FLOOR = 1e-3
"""Keeps the division in `swap_low_band` finite far from every pixel with a weight."""


def correct_color(
    image: Tensor, reference: Tensor, method: ColorFix, weight: Tensor | None = None
) -> Tensor:
    """Return ``image`` [B, 3, H, W] with the colours of ``reference``, by the method named.

    Args:
        image: what is corrected.
        reference: of the same shape.
        method: one of the three.
        weight: how much a pixel counts, [B, 1, H, W], 0 ... 1: its opacity. None for all alike.

    Raises:
        ValueError: the two differ in shape.
    """
    if image.shape != reference.shape:
        raise ValueError(
            f"image {tuple(image.shape)} and reference {tuple(reference.shape)} differ in shape"
        )
    if method == "adain":
        return adain(image, reference, weight)
    if method == "wavelet":
        return swap_low_band(image, reference, weight)
    return image


def adain(image: Tensor, reference: Tensor, weight: Tensor | None = None) -> Tensor:
    """Shift and scale every channel of ``image`` to the mean and deviation of ``reference``.

    Without ``weight`` the two may differ in height and width.
    """
    image_std, image_mean = _channel_std_mean(image, weight)
    reference_std, reference_mean = _channel_std_mean(reference, weight)
    return (image - image_mean) * (reference_std / image_std) + reference_mean


def _channel_std_mean(image: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return standard deviation and mean of every channel, both [B, 3, 1, 1]."""
    if weight is None or not weight.any():
        # unbiased=False: the n - 1 of the unbiased estimate is zero for an image of one pixel.
        variance = image.var(dim=(2, 3), keepdim=True, unbiased=False)
        mean = image.mean(dim=(2, 3), keepdim=True)
    else:
        share = weight / weight.sum(dim=(2, 3), keepdim=True)
        mean = (share * image).sum(dim=(2, 3), keepdim=True)
        variance = (share * (image - mean).square()).sum(dim=(2, 3), keepdim=True)
    return (variance + VARIANCE_FLOOR).sqrt(), mean


def swap_low_band(image: Tensor, reference: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the high frequencies of ``image`` on the low frequencies of ``reference``.

    With ``weight`` the low frequencies are those of a normalized convolution (Knutsson & Westin
    1993): every pixel's share of the blur is multiplied by its weight.
    """
    difference = reference - image  # the blur is linear: one pass serves both
    if weight is None:
        return image + low_band(difference)
    weight = weight + WEIGHT_FLOOR
    return image + low_band(weight * difference) / low_band(weight)


def low_band(image: Tensor) -> Tensor:
    """Blur with the binomial kernel [1 2 1]/4 in both directions, its taps 1, 2, 4, 8, 16 px apart.

    Sampling wider with the same three taps instead of shrinking the image is the à-trous ("with
    holes") transform; edges are replicated.
    """
    for level in range(WAVELET_LEVELS):
        gap = 2**level
        for dim in (-1, -2):
            image = _three_taps(image, gap, dim)
    return image


def _three_taps(image: Tensor, gap: int, dim: int) -> Tensor:
    """One such blur along a dimension.

    By slices, which take one more image of memory each; a convolution takes a dozen.
    """
    length = image.shape[dim]
    padding = (gap, gap, 0, 0) if dim == -1 else (0, 0, gap, gap)
    padded = F.pad(image, padding, mode="replicate")
    before, middle, after = (padded.narrow(dim, start, length) for start in (0, gap, 2 * gap))
    return (middle * 0.5).add_(before, alpha=0.25).add_(after, alpha=0.25)
