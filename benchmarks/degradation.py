"""Real-world degradation: blur, four times smaller, noise, JPEG (the order of Real-ESRGAN)."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from benchmarks.photos import Image

SCALE = 4
FILTERS = (Pillow.Resampling.BOX, Pillow.Resampling.BILINEAR, Pillow.Resampling.BICUBIC)


@dataclass(frozen=True)
class Degradation:
    """One draw of the degradation.

    Attributes:
        blur_px: standard deviations of the Gaussian blur, rows and columns, in full-size pixels.
        resampling: index into ``FILTERS``.
        noise: standard deviation of the sensor noise, in units of full scale.
        gray_noise: the three channels share one noise.
        jpeg_quality: 1 ... 95, as Pillow counts it.
        seed: seed of the noise.
    """

    blur_px: tuple[float, float]
    resampling: int
    noise: float
    gray_noise: bool
    jpeg_quality: int
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Degradation":
        """Draw at random; the ranges are those the bundled model was trained with."""
        blur = rng.uniform(0.2, 2.0)
        return cls(
            blur_px=(float(blur), float(blur * rng.uniform(0.6, 1.6))),
            resampling=int(rng.integers(len(FILTERS))),
            noise=float(rng.uniform(0.0, 10.0) / 255),
            gray_noise=bool(rng.random() < 0.4),
            jpeg_quality=int(rng.integers(50, 96)),
            seed=int(rng.integers(2**31)),
        )

    def apply(self, image: Image) -> Image:
        """Degrade ``image`` [H, W, 3] to [H/4, W/4, 3]; H and W are multiples of 4."""
        height, width = image.shape[0] // SCALE, image.shape[1] // SCALE
        blurred = gaussian_filter(image, (*self.blur_px, 0))
        small = resize(blurred, height, width, FILTERS[self.resampling])
        rng = np.random.default_rng(self.seed)
        channels = 1 if self.gray_noise else 3
        small = small + rng.normal(0, self.noise, (height, width, channels))
        encoded = io.BytesIO()
        quantized = np.uint8(np.rint(np.clip(small, 0, 1) * 255))
        Pillow.fromarray(quantized).save(encoded, "JPEG", quality=self.jpeg_quality)
        return np.asarray(Pillow.open(encoded), np.float32) / 255


def resize(
    image: Image, height: int, width: int, resampling: Pillow.Resampling = Pillow.Resampling.BICUBIC
) -> Image:
    """Resize [H, W, 3] in floating point, values clipped to 0 ... 1."""
    channels = [
        np.asarray(
            Pillow.fromarray(np.ascontiguousarray(image[..., c], np.float32)).resize(
                (width, height), resampling
            )
        )
        for c in range(3)
    ]
    return np.clip(np.stack(channels, axis=2), 0, 1).astype(np.float32)
