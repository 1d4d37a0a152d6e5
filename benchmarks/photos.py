"""Photos that scikit-image and scikit-learn ship: to measure on, and to calibrate with.

The bundled model was trained on the latter and never on the former.
"""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
"""A picture [H, W, 3], values 0 ... 1."""

HELD_OUT = ("astronaut", "chelsea", "coffee")

COLOUR_PHOTOS = ("hubble_deep_field", "immunohistochemistry", "retina", "rocket")
GRAY_PHOTOS = ("brick", "camera", "coins", "grass", "gravel", "moon", "page", "clock")
LEARN_PHOTOS = ("china.jpg", "flower.jpg")


def held_out_photos() -> dict[str, Image]:
    """Photos for testing, by name."""
    from skimage import data

    return {name: _unit(getattr(data, name)()) for name in HELD_OUT}


def training_photos(rng: np.random.Generator) -> list[Image]:
    """Every shipped photo that is not held out; gray ones come tinted by a random colour curve."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    left, right, _ = data.stereo_motorcycle()
    photos = [_unit(left), _unit(right)]
    photos += [_unit(load_sample_image(name)) for name in LEARN_PHOTOS]
    photos += [_unit(getattr(data, name)()) for name in COLOUR_PHOTOS]
    photos += [_tint(_unit(getattr(data, name)()), rng) for name in GRAY_PHOTOS]
    return photos


def _tint(image: Image, rng: np.random.Generator) -> Image:
    gamma = rng.uniform(0.7, 1.4, 3).astype(np.float32)
    return np.asarray(image**gamma, np.float32)


def _unit(image: npt.NDArray[np.uint8]) -> Image:
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return np.asarray(image[..., :3], np.float32) / 255
