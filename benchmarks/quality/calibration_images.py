"""Images to calibrate with: degraded crops of training photos, never of held-out ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from artifacts.files.whole_file import replacing
from benchmarks.degradation import SCALE, Degradation
from benchmarks.photos import training_photos

SEED = 1711
CROPS_PER_PHOTO = 2
LARGEST_SIDE_PX = 96
"""Side of an image; larger than what a calibration crops from it, so that places differ."""


def write_calibration_images(folder: Path) -> list[Path]:
    """Write the images as PNG files, the same every time; existing ones are left alone.

    Returns:
        Their paths, sorted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    # Gray photos come in colours that are drawn from the generator.
    for index, photo in enumerate(training_photos(np.random.default_rng(SEED))):
        height, width = photo.shape[:2]
        side = min(LARGEST_SIDE_PX, height // SCALE, width // SCALE) * SCALE
        for turn in range(CROPS_PER_PHOTO):
            path = folder / f"{index:02}-{turn}.png"
            paths.append(path)
            if path.exists():
                continue
            rng = np.random.default_rng([SEED, index, turn])
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            small = Degradation.draw(rng).apply(photo[top : top + side, left : left + side])
            with replacing(path) as partial:
                Image.fromarray(np.uint8(np.rint(small * 255))).save(partial, "PNG")
    return sorted(paths)
