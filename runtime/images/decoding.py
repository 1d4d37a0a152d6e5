"""From an opened image file to tensors: every kind of sample to sRGB, 0 ... 1."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.images.alpha import fill_invisible
from runtime.images.formats import GIF, JPEG, PNG, WEBP
from runtime.images.jpeg_data import decode_jpeg
from runtime.images.loaded_image import LoadedImage
from runtime.images.metadata import read_metadata
from runtime.images.opening import (
    BYTES_PER_PIXEL,
    OpenedImage,
    readable_errors,
)
from runtime.images.png_chunks import relies_on_profile
from runtime.images.profiles import APPLIED, REFUSED, to_srgb
from runtime.images.sample_kinds import SampleKind
from runtime.images.vips_warnings import collected_warnings
from schemas.errors import ImageError

FLOAT_RANGE = (-0.25, 4.0)
"""What floating-point samples of 0 ... 1 may reach: resampling overshoots, highlights go two stops
beyond white. Further out they were meant for another range, such as 0 ... 255."""

_STRIP_SAMPLES = 2**22
"""Samples that are converted at once, so that only the result has the size of the image."""

_DEEP = {"gray": "grey16", "RGB": "rgb16", "CMYK": "cmyk"}


def decode(opened: OpenedImage, *, max_pixels: int) -> LoadedImage:
    """Decode an image; the table of `runtime.images.image_io` says what becomes of its kind.

    Raises:
        ImageError: the file is truncated or damaged, or its floating-point samples have a range of
            their own.
    """
    what = "truncated or damaged image"
    with readable_errors(opened.path, what, hint="save it again from its source"):
        image, notes = _pixels(opened, max_pixels)
        if opened.frames > 1:
            parts = "frames" if opened.format in {GIF, PNG, WEBP} else "pages"
            notes.append(f"only the first of {opened.frames} {parts} is read")
        if image.get_typeof("palette"):
            notes.append("palette expanded")
        metadata, too_much = read_metadata(image)
        if too_much:
            notes.append(too_much)
        image = image.autorot()
        kind = opened.kind
        if kind.samples == "floating point":
            image = _checked_floats(opened.path, image, kind, notes)
        image = _to_full_scale(image)
        colors = image[: kind.channels] if kind.has_alpha else image
        srgb, how = to_srgb(colors, kind)
        has_profile = bool(image.get_typeof("icc-profile-data"))
        if opened.format is PNG and not has_profile and relies_on_profile(opened.path):
            how = REFUSED
        if kind.space in {"CMYK", "CIELab"}:
            notes.append(
                f"converted from {kind.space} to sRGB ({how or _DEFAULT_MEANING[kind.space]})"
            )
        elif how:
            meaning = "converted to sRGB" if how == APPLIED else "taken to be sRGB"
            notes.append(f"{meaning} ({how})")
        rgb = _to_tensor(srgb)
        alpha = _to_tensor(image[kind.channels]) if kind.has_alpha else None
    if alpha is not None and _is_by_the_way(opened) and bool((alpha == 1).all()):
        alpha = None
    if alpha is not None:
        rgb = fill_invisible(rgb, alpha)
    return LoadedImage(
        rgb=rgb,
        alpha=alpha,
        gray=kind.space == "gray",
        sample_bits=8 if kind.samples == "8 bits" else 16,
        has_profile=has_profile,
        notes=tuple(notes),
        metadata=metadata,
    )


_DEFAULT_MEANING = {"CMYK": "libvips' default profile", "CIELab": "under D50"}


def _is_by_the_way(opened: OpenedImage) -> bool:
    """Whether an alpha channel is the reader's way to draw frames, and not the picture's own."""
    return opened.frames > 1 or opened.format is GIF


def _pixels(opened: OpenedImage, max_pixels: int) -> tuple[pyvips.Image, list[str]]:
    """Decode into memory, which also lets `autorot` turn the image; and what the user should know.

    Sequential reading stops at the first damaged row.

    Raises:
        pyvips.Error: the file is truncated or damaged.
    """
    if opened.format is JPEG:
        return decode_jpeg(opened.path, max_bytes=BYTES_PER_PIXEL * max_pixels)
    with collected_warnings():
        return opened.image.copy_memory(), []


def _checked_floats(
    path: Path, image: pyvips.Image, kind: SampleKind, notes: list[str]
) -> pyvips.Image:
    """Return floating-point samples ready to be converted: CIELab as it is, others in 16 bits.

    Raises:
        ImageError: a sample is not finite, or the range is not 0 ... 1.
    """
    if kind.space == "CIELab":
        image = image.colourspace("lab")
    lowest, highest, outside, count = np.inf, -np.inf, 0, 0
    for _, strip in _strips(image):
        lowest = min(lowest, float(strip.min()))
        highest = max(highest, float(strip.max()))
        outside += int(((strip < 0) | (strip > 1)).sum())
        count += strip.size
    if not np.isfinite([lowest, highest]).all():  # one NaN makes both of them NaN
        raise ImageError(f"{path}: a sample is infinite or not a number")
    if kind.space == "CIELab":
        return image
    if lowest < FLOAT_RANGE[0] or highest > FLOAT_RANGE[1]:
        raise ImageError(
            f"{path}: floating-point samples of {lowest:.4g} ... {highest:.4g}, where 0 is black"
            " and 1 is white",
            hint="scale them to 0 ... 1, or save it with 16 bits",
        )
    coding = "for its profile" if image.get_typeof("icc-profile-data") else "as in sRGB"
    notes.append(f"floating-point samples taken to be coded {coding}, 0 ... 1, in 16 bits")
    if outside:
        notes.append(f"{outside / count:.2%} of its samples lie outside 0 ... 1 and are clipped")
    scaled = (image * 65535).rint().cast("ushort")
    return scaled.copy(interpretation=_DEEP[kind.space])


def _to_full_scale(image: pyvips.Image) -> pyvips.Image:
    """Stretch samples of 9 to 15 bits (HEIF's 10 and 12), which stand in the upper bits of 16.

    Without it their white is 65472 of 65535, and what is opaque is not.
    """
    bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 16
    if image.format != "ushort" or not 8 < bits < 16:
        return image
    white = (2**bits - 1) << (16 - bits)
    return (image * (65535 / white)).rint().cast("ushort")


def _to_tensor(image: pyvips.Image) -> Tensor:
    """Return an image of 8 or 16 bits as [1, bands, H, W], 0 ... 1."""
    tensor = torch.empty(1, image.bands, image.height, image.width)
    for top, strip in _strips(image):
        scaled = torch.from_numpy(strip.astype(np.float32)).div_(np.iinfo(strip.dtype).max)
        tensor[0, :, top : top + strip.shape[0]] = scaled.permute(2, 0, 1)
    return tensor


def _strips(image: pyvips.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """Cut an image into strips [rows, W, bands], each with its first row's number."""
    rows = max(1, _STRIP_SAMPLES // (image.width * image.bands))
    for top in range(0, image.height, rows):
        strip = image.crop(0, top, image.width, min(rows, image.height - top)).numpy()
        yield top, strip.reshape(*strip.shape[:2], image.bands)
