"""Opening image files: what they are, what their header says, and whether they are decoded at all.

Nothing is decoded here but the header, so that a bomb costs nothing.
"""

import math
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyvips

from runtime.images.formats import PNG, START_BYTES, ImageFormat, describe_other, recognize
from runtime.images.png_chunks import animation_frames
from runtime.images.sample_kinds import SAMPLE_BYTES, SampleKind, sample_kind
from runtime.images.vips_warnings import collected_warnings
from schemas.errors import ImageError

BYTES_PER_PIXEL = 12
"""What a pixel takes as a tensor: three channels of float32. Where a file's own samples are more,
its pixels count for more."""

READABLE = "JPEG, PNG, WebP, TIFF, GIF and HEIF are read"


@dataclass(frozen=True)
class OpenedImage:
    """An image file whose header was read and found good.

    Attributes:
        path: the file.
        format: what it is.
        kind: what its samples mean.
        image: libvips' image of it, not decoded yet, which can be decoded once, from top to bottom.
        frames: how many pages or frames it has.
    """

    path: Path
    format: ImageFormat
    kind: SampleKind
    image: pyvips.Image
    frames: int


def open_image(path: Path, *, max_pixels: int) -> OpenedImage:
    """Read and check the header of an image.

    Args:
        path: any file.
        max_pixels: refuse images with more pixels than this, or that take more memory than so many
            pixels do.

    Raises:
        ImageError: the file is missing, empty, not an image, of a kind that is not read, or larger
            than allowed.
    """
    start = _read_start(path)
    found = recognize(start)
    if found is None:
        other = describe_other(start)
        reason = f" ({other})" if other else ""
        raise ImageError(f"{path}: not a readable image{reason}", hint=READABLE)
    with readable_errors(path, "not a readable image"), open_source(path) as source:
        image = load(found, source)
    kind = sample_kind(image, path)
    _check_size(path, image, max_pixels)
    frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if found is PNG:
        frames = max(frames, animation_frames(path))
    return OpenedImage(path, found, kind, image, frames)


def load(found: ImageFormat, source: pyvips.Source, *, fail_on: str = "truncated") -> pyvips.Image:
    """Open ``source`` as ``found``, for reading from top to bottom.

    Args:
        found: the format.
        source: of the file's bytes.
        fail_on: where reading stops, in libvips' words.

    Raises:
        pyvips.Error: it is no such image.
    """
    with collected_warnings():
        image: pyvips.Image = pyvips.Operation.call(
            found.loader, source, access="sequential", fail_on=fail_on
        )
    return image


@contextmanager
def open_source(path: Path) -> Iterator[pyvips.Source]:
    """A source that reads ``path``.

    By its descriptor, so that its name, which need not be text, does not matter: it would be
    searched for options, and serve an older file of that name from libvips' cache.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb", buffering=0) as file:
        yield pyvips.Source.new_from_descriptor(file.fileno())


@contextmanager
def readable_errors(path: Path, what: str, *, hint: str = READABLE) -> Iterator[None]:
    """Turn errors of libvips and of the file system into `ImageError`.

    Args:
        path: the file.
        what: is wrong with it, in general.
        hint: what can be done.
    """
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except pyvips.Error as error:
        reason = first_line(error)
        raise ImageError(f"{path}: {what} ({_REASONS.get(reason, reason)})", hint=hint) from error


_REASONS = {
    # What libvips 8.18 says of kinds of TIFF that it cannot represent.
    "image: bad labq format": "8-bit CIELab",
    "tiff2vips: samples out of range": "samples of 64 bits or of complex numbers",
}


def first_line(error: pyvips.Error) -> str:
    """The first thing that libvips itself said, without its prefix."""
    lines = [line.strip() for line in (error.detail or error.message).splitlines()]
    return next((line for line in lines if line), "no reason given")


def _read_start(path: Path) -> bytes:
    """The first bytes of a regular file.

    Raises:
        ImageError: it is none, is empty, or cannot be read.
    """
    with readable_errors(path, ""):
        status = path.stat()
        # Looked at before opening, which would wait for ever on a pipe.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: not a regular file")
        if status.st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with path.open("rb") as file:
            return file.read(START_BYTES)


def _check_size(path: Path, image: pyvips.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    decoded_bytes = pixels * image.bands * SAMPLE_BYTES[image.format]
    counted = max(pixels, math.ceil(decoded_bytes / BYTES_PER_PIXEL))
    if counted <= max_pixels:
        return
    size = f"{image.width} x {image.height} px is {pixels / 1e6:,.1f} megapixels"
    if counted > pixels:
        size += f" of {image.bands * SAMPLE_BYTES[image.format]} bytes each"
    raise ImageError(
        f"{path}: {size}, more than the {max_pixels / 1e6:,.1f} allowed; the result would have"
        f" {4 * image.width} x {4 * image.height}",
        hint=f"--max-pixels {counted} allows it, if the memory is there",
    )
