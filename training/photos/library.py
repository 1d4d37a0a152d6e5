"""The gathered photos as arrays, training and held out."""

from pathlib import Path

import numpy as np

from training.degradation.resampling import Pixels
from training.photos import shipped
from training.photos.gather import array_file
from training.photos.manifest import read_manifest


def training_photos(cache: Path) -> list[Pixels]:
    """Photos [H, W, 3] to train on; those of the cache are mapped from disk, not read."""
    gathered = [_load(cache, entry.key) for entry in read_manifest(cache) if not entry.held_out]
    return gathered + list(shipped.training_photos().values())


def held_out_photos(cache: Path) -> dict[str, Pixels]:
    """Photos [H, W, 3] to judge on, by key."""
    gathered = {e.key: _load(cache, e.key) for e in read_manifest(cache) if e.held_out}
    return gathered | shipped.held_out_photos()


def _load(cache: Path, key: str) -> Pixels:
    photo: Pixels = np.load(array_file(cache, key), mmap_mode="r")
    return photo
