"""Blur kernels and filtering with them."""

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve
from scipy.special import j1

from training.degradation.resampling import FloatImage

Kernel = npt.NDArray[np.float64]
"""Odd-sided [K, K], sum 1."""


def gaussian_kernel(sigma_px: tuple[float, float], angle: float) -> Kernel:
    """An oriented Gaussian.

    Args:
        sigma_px: standard deviations along the two axes, in pixels.
        angle: of the first axis, in radians.
    """
    radius = max(1, int(np.ceil(3 * max(sigma_px))))
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * columns
    exponent = (along / max(sigma_px[0], 0.1)) ** 2 + (across / max(sigma_px[1], 0.1)) ** 2
    kernel = np.exp(-exponent / 2)
    return np.asarray(kernel / kernel.sum())


def sinc_kernel(cutoff: float, radius: int = 7) -> Kernel:
    """A circular low pass, which rings at edges as sharpened or strongly compressed pictures do.

    Args:
        cutoff: in radians per pixel, pi / 3 ... pi.
        radius: of the cut-off kernel, in pixels.
    """
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    distance = np.hypot(rows, columns)
    distance[radius, radius] = 1.0  # its value is the limit, set below
    kernel = cutoff * j1(cutoff * distance) / (2 * np.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)
    return np.asarray(kernel / kernel.sum())


def convolve(image: FloatImage, kernel: Kernel) -> FloatImage:
    """Filter [H, W, 3] with ``kernel``; edges are mirrored."""
    radius = kernel.shape[0] // 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    filtered = fftconvolve(padded, kernel.astype(np.float32)[..., None], mode="valid", axes=(0, 1))
    return filtered.astype(np.float32)
