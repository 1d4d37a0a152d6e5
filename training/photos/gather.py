"""Unpacks the selected photos into a cache of plain arrays.

A photo is stored at a size where its pixels are sharp: pictures compressed to few bits per pixel,
and the largest ones of a camera, have no detail at their own resolution, and would teach the model
that soft is right.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.photos.debian import unpack
from training.photos.licences import CopyrightFile
from training.photos.manifest import Entry, write_manifest
from training.photos.qt_resources import QtResources
from training.photos.selection import SOURCES, Source, is_held_out

BYTES_PER_PIXEL = 0.2
"""Compressed size below which a picture is shrunk until it has as much."""
SMALLEST_SCALE = 0.45
LONGEST_SIDE_PX = 2048
SHORTEST_SIDE_PX = 320


def default_cache() -> Path:
    """Folder of the photos where no other is named."""
    return Path.home() / ".cache/qdit4sr/photos"


def gather(cache: Path) -> list[Entry]:
    """Fetch, unpack and shrink every selected photo; returns the manifest, which is also written.

    Args:
        cache: folder for packages, unpacked files, ``arrays/GROUP/NAME.npy`` and the manifest.
    """
    cache.mkdir(parents=True, exist_ok=True)
    entries = [entry for source in SOURCES for entry in _gather(source, cache)]
    write_manifest(entries, cache)
    return entries


def array_file(cache: Path, key: str) -> Path:
    """Where the photo ``key`` lies, uint8 [H, W, 3]."""
    return cache / "arrays" / f"{key}.npy"


def sharp_size(size: tuple[int, int], file_bytes: int) -> tuple[int, int]:
    """Size, in the order of ``size``, at which a picture of ``file_bytes`` is sharp."""
    by_bytes = (file_bytes / (size[0] * size[1]) / BYTES_PER_PIXEL) ** 0.5
    scale = max(by_bytes, SMALLEST_SCALE, SHORTEST_SIDE_PX / min(size))
    scale = min(scale, LONGEST_SIDE_PX / max(size), 1.0)
    return round(size[0] * scale), round(size[1] * scale)


def _gather(source: Source, cache: Path) -> Iterator[Entry]:
    package = unpack(source.package, cache)
    licences = CopyrightFile(package.copyright_text())
    folder = package.root / source.folder
    content = dict(QtResources(folder.read_bytes()).files()) if source.is_qt_resource else {}
    for key, file in source.files().items():
        encoded = content[file] if source.is_qt_resource else (folder / file).read_bytes()
        licence = licences.of(source.source_path(file))
        pixels = _decode(encoded)
        stored = array_file(cache, key)
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.save(stored, pixels)
        yield Entry(
            key=key,
            held_out=is_held_out(key),
            package=f"{package.name} {package.version}",
            file=f"{source.folder}/{file}",
            licence=licence.name,
            holder=licence.holder,
            bytes=len(encoded),
            sha256=hashlib.sha256(encoded).hexdigest(),
            stored_px=(pixels.shape[0], pixels.shape[1]),
        )


def _decode(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Pixels [H, W, 3] of a picture file, shrunk to where they are sharp."""
    with Image.open(io.BytesIO(encoded)) as file:
        picture = file.convert("RGB")
    size = sharp_size(picture.size, len(encoded))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
