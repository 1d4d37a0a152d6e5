"""Photos that scikit-image and scikit-learn ship.

Three of them are held out, as they have been since the project's first model.
"""

import numpy as np

from training.degradation.resampling import Pixels

HELD_OUT = ("astronaut", "chelsea", "coffee")

COLOUR_PHOTOS = ("rocket",)
GRAY_PHOTOS = ("brick", "camera", "coins", "grass", "gravel", "page", "clock")
LEARN_PHOTOS = ("china.jpg", "flower.jpg")


def held_out_photos() -> dict[str, Pixels]:
    """Photos for testing, by name."""
    from skimage import data

    return {name: _colour(getattr(data, name)()) for name in HELD_OUT}


def training_photos() -> dict[str, Pixels]:
    """Every shipped photo that is not held out, by name; gray ones have three equal channels."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    photos = {"motorcycle": _colour(data.stereo_motorcycle()[0])}
    photos |= {name: _colour(load_sample_image(name)) for name in LEARN_PHOTOS}
    photos |= {name: _colour(getattr(data, name)()) for name in COLOUR_PHOTOS + GRAY_PHOTOS}
    return photos


def _colour(image: Pixels) -> Pixels:
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])
