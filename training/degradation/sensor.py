"""Noise of a sensor, and the JPEG that a camera or a website makes."""

import io

import numpy as np
from PIL import Image

from training.degradation.resampling import FloatImage, to_float, to_pixels


def gaussian_noise(
    image: FloatImage, deviation: float, *, gray: bool, rng: np.random.Generator
) -> FloatImage:
    """Add noise of a standard deviation in units of full scale; ``gray``: one for all channels."""
    shape = (*image.shape[:2], 1 if gray else 3)
    noisy = image + deviation * rng.standard_normal(shape, np.float32)
    return np.clip(noisy, 0, 1)


def poisson_noise(
    image: FloatImage, photons: float, *, gray: bool, rng: np.random.Generator
) -> FloatImage:
    """Add shot noise.

    Args:
        image: the picture.
        photons: expected count at full white; the noise of a value v deviates by sqrt(v / photons).
        gray: one noise for all channels, that of their mean.
        rng: source of the noise.
    """
    mean = image.mean(axis=2, keepdims=True) if gray else image
    noise = rng.poisson(mean * photons) / photons - mean
    return np.clip(image + noise.astype(np.float32), 0, 1)


def jpeg(image: FloatImage, quality: int) -> FloatImage:
    """Through JPEG and back, at ``quality`` 1 ... 95 as Pillow counts it."""
    encoded = io.BytesIO()
    Image.fromarray(to_pixels(image)).save(encoded, "JPEG", quality=quality)
    return to_float(np.asarray(Image.open(encoded)))
