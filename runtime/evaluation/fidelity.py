"""PSNR and SSIM, in RGB and on luma: how near a result is to the truth, pixel by pixel.

Luma is Y of YCbCr after ITU-R BT.601, 16 ... 235 of 255, as Matlab's ``rgb2ycbcr`` and the papers
of this field have it. Its range is smaller than RGB's, so the same error gives 1.3 dB more there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (65.481, 128.553, 24.966)
"""Weights of red, green and blue, 0 ... 1, in Y, 16 ... 235 (BT.601)."""
_LUMA_OFFSET = 16.0

_MSE_FLOOR = 1e-8
"""Added to the mean squared error, so that equal pictures have 80 dB instead of infinitely many."""

_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
"""Window and constants of Wang et al. (2004), for values 0 ... 255."""


def luma(rgb: Tensor) -> Tensor:
    """Return Y [1, 1, H, W], 16 ... 235, float64, of sRGB-coded values [1, 3, H, W], 0 ... 1."""
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=rgb.device).view(1, 3, 1, 1)
    return (rgb.double() * weights).sum(dim=1, keepdim=True) + _LUMA_OFFSET


def psnr(result: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, of values 0 ... 1."""
    return _psnr_db(result.double() - truth.double())


def psnr_luma(result: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of luma in dB; the peak is 255, as papers have it."""
    return _psnr_db((luma(result) - luma(truth)) / 255)


def ssim(result: Tensor, truth: Tensor) -> float:
    """Structural similarity of the colour channels, averaged over them."""
    return _ssim(result.double() * 255, truth.double() * 255)


def ssim_luma(result: Tensor, truth: Tensor) -> float:
    """Structural similarity of luma."""
    return _ssim(luma(result), luma(truth))


def _psnr_db(error: Tensor) -> float:
    return float(-10 * torch.log10(error.square().mean() + _MSE_FLOOR))


def _ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al.'s mean SSIM of [1, C, H, W] in 0 ... 255, without borders.

    Values are rounded to whole levels first, as Matlab's pictures are; where two windows vary
    against each other, structure counts as 0, as in pyiqa.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(a.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs images of at least {_WINDOW} x {_WINDOW} px")
    channels = a.shape[1]
    offsets = torch.arange(_WINDOW, dtype=torch.float64, device=a.device) - _WINDOW // 2
    line = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    line = (line / line.sum()).expand(channels, 1, _WINDOW)

    def blur(image: Tensor) -> Tensor:
        # The window is a product of two lines, which is a fifth of the work.
        across = F.conv2d(image, line[:, :, None, :], groups=channels)
        return F.conv2d(across, line[:, :, :, None], groups=channels)

    a, b = a.round(), b.round()
    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    brightness = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return float((brightness * structure.clamp_min(0)).mean())
