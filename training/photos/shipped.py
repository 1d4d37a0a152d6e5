"""Training and held-out pictures: photos that scikit-image and scikit-learn ship, dead leaves.

The held-out photos are never trained on; every measured result of the bundled model uses them.
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


def dead_leaves(size: int, palette: Image, rng: np.random.Generator, leaves: int = 350) -> Image:
    """A picture of overlapping textured shapes whose sizes follow a power law.

    Dead leaves have the edge and occlusion statistics of photographs (Lee, Mumford and Huang,
    2001), which makes them useful where photographs are few.

    Args:
        size: side of the picture in pixels.
        palette: a photo whose pixels lend their colours.
        rng: source of all randomness.
        leaves: number of shapes, largest possible radius a third of the side.
    """
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = _colour(palette, rng)
    smallest, largest = 2.0, size / 3
    for _ in range(leaves):
        # Inverse-transform sampling of a density proportional to r^-3.
        u = rng.random()
        radius = (u * largest**-2 + (1 - u) * smallest**-2) ** -0.5
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.3, 1.0)
        centre = rng.uniform(0, size, 2)
        # Only the leaf's surroundings are touched; a rotated square reaches sqrt(2) radii out.
        reach = 1.5 * radius + 2
        first = np.maximum(centre - reach, 0).astype(int)
        last = np.minimum(centre + reach, size).astype(int) + 1
        window = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        patch = canvas[window]
        rows, columns = np.mgrid[window].astype(np.float32)[:, : patch.shape[0], : patch.shape[1]]
        dy, dx = rows - centre[0], columns - centre[1]
        along = np.cos(angle) * dx + np.sin(angle) * dy
        across = (np.cos(angle) * dy - np.sin(angle) * dx) / stretch
        shape = rng.integers(3)
        if shape == 0:
            distance = np.hypot(along, across)
        elif shape == 1:
            distance = np.maximum(np.abs(along), np.abs(across))
        else:
            distance = np.abs(along) + np.abs(across)
        # One pixel of soft edge, so that the pictures are not aliased.
        alpha = np.clip(radius - distance + 0.5, 0, 1)[..., None]
        patch += alpha * (_texture(along, across, radius, palette, rng) - patch)
    return np.clip(canvas, 0, 1)


def _texture(
    along: npt.NDArray[np.float32],
    across: npt.NDArray[np.float32],
    radius: float,
    palette: Image,
    rng: np.random.Generator,
) -> Image:
    """Fill of one leaf: flat with shading, stripes, or grain."""
    colour, other = _colour(palette, rng), _colour(palette, rng)
    shade = 1 + rng.uniform(-0.3, 0.3) * across / max(radius, 1.0)
    fill = (colour * shade[..., None]).astype(np.float32)
    kind = rng.integers(4)
    if kind == 1:
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * along / rng.uniform(3.0, 16.0))
        fill += (other - fill) * (rng.uniform(0.2, 0.9) * wave)[..., None].astype(np.float32)
    elif kind == 2:
        fill += rng.normal(0, rng.uniform(0.02, 0.12), fill.shape[:2])[..., None].astype(np.float32)
    return fill


def _colour(palette: Image, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    colour: npt.NDArray[np.float32] = palette[
        rng.integers(palette.shape[0]), rng.integers(palette.shape[1])
    ]
    return colour


def _tint(image: Image, rng: np.random.Generator) -> Image:
    gamma = rng.uniform(0.7, 1.4, 3).astype(np.float32)
    return np.asarray(image**gamma, np.float32)


def _unit(image: npt.NDArray[np.uint8]) -> Image:
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return np.asarray(image[..., :3], np.float32) / 255
