"""A tiny checkpoint with everything a calibration takes, and a folder of small photos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.json_io import format_json
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.planner.make_base import make_base, make_embeddings

SAMPLING = {
    "steps": 3,
    "guidance": 2.0,
    "shift": 3.0,
    "tile_latent": 16,
    "overlap_latent": 4,
    "upscale": 4,
    "min_side_px": 16,
    "color_fix": "none",
}
CROP_PX = 4
"""What fills one tile: the tiny autoencoder has one pixel per latent pixel."""


@dataclass(frozen=True)
class Setup:
    """Paths of one test's inputs."""

    checkpoint: Path
    base: Path
    images: Path


def make_setup(folder: Path, *, images: int = 3, size_px: int = 9) -> Setup:
    """Write checkpoint, base and images; the same every time."""
    checkpoint = write_folder(folder / "tiny", random_state())
    base = make_base(folder / "base", encoders=False)
    make_embeddings(base / "prompts.safetensors")
    (base / "sampling.json").write_text(format_json(SAMPLING))
    photos = folder / "photos"
    photos.mkdir()
    rng = np.random.default_rng(5)
    for index in range(images):
        pixels = rng.integers(0, 256, (size_px + index, size_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{index}.png")
    return Setup(checkpoint, base, photos)
