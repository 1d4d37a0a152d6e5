"""Reading images into sRGB tensors and writing results that look like their inputs.

The network sees three channels of sRGB. What an image has beside that is put back or said:

================  ===============================================================================
input             result
================  ===============================================================================
gray              processed as RGB, written as gray
alpha             enlarged on its own (bicubic) and put back; JPEG has none: flattened on white
16 bits           16 bits in PNG and TIFF, 8 in JPEG, WebP and AVIF
floating point    0 ... 1, coded as in sRGB or for the profile; written as 16 bits
EXIF orientation  applied
EXIF, XMP, IPTC   taken along, and so is the printing density; TIFF gets no EXIF
ICC profile       converted to sRGB; the result carries an sRGB profile (gray: none, it is sRGB's)
CMYK, CIELab      converted to sRGB
palette           expanded to RGB
pages, frames     the first one
================  ===============================================================================

Every conversion that loses something is said in ``notes`` and in this module's log.
`runtime.images.sample_kinds` says what is refused.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyvips
from numpy.typing import NDArray
from torch import Tensor

from artifacts.files.whole_file import replacing
from runtime.images.alpha import on_white
from runtime.images.batch import DEFAULT_MAX_PIXELS
from runtime.images.decoding import decode
from runtime.images.folder import OUTPUT_SUFFIXES
from runtime.images.loaded_image import Header, LoadedImage
from runtime.images.made_with import Setting, with_record
from runtime.images.metadata import with_metadata
from runtime.images.opening import first_line, open_image
from runtime.images.pixel_form import PixelForm
from runtime.images.vips_warnings import collected_warnings
from schemas.errors import ImageError, ResourceError

logger = logging.getLogger(__name__)

JPEG_QUALITY = 95
WEBP_QUALITY = 92
AVIF_QUALITY = 80
PREVIEW_QUALITY = 85

_MAX_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".avif": 16384}
"""Longest side that a format can hold, where it has a limit that an upscaled image can meet."""

_LACKS_EXIF = {".tif", ".tiff"}


def read_header(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """Check from its header that an image can be decoded at all.

    Args:
        path: any file.
        max_pixels: refuse images with more pixels than this.

    Raises:
        ImageError: the file is missing, empty, not an image, of a kind that is not read, or larger
            than allowed.
    """
    image = open_image(path, max_pixels=max_pixels).image
    return Header(image.width, image.height)


def check_output_size(path: Path, width: int, height: int) -> None:
    """Make sure that the format of ``path`` can hold an image of ``width`` x ``height`` px.

    Raises:
        ImageError: it cannot.
    """
    limit = _MAX_SIDE_PX.get(path.suffix.lower())
    if limit is not None and max(width, height) > limit:
        raise ImageError(
            f"{path}: {width} x {height} px does not fit {path.suffix}, which ends at {limit} px"
            " a side",
            hint="write a .png or .tif",
        )


def read_image(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> LoadedImage:
    """Decode an image; see the table of this module for what becomes of its kind.

    Raises:
        ImageError: as `read_header`, or the file is truncated or damaged.
    """
    image = decode(open_image(path, max_pixels=max_pixels), max_pixels=max_pixels)
    for note in image.notes:
        logger.info("%s: %s", path, note)
    return image


def write_image(
    path: Path,
    rgb: Tensor,
    like: LoadedImage,
    *,
    alpha: Tensor | None,
    made_with: Mapping[str, Setting] | None = None,
    quality: int | None = None,
    strip: bool = False,
) -> list[str]:
    """Write ``rgb`` in the format of ``path``'s extension, with the traits of ``like``.

    The file appears whole or not at all: it is written beside its place and moved there.

    Args:
        path: ends in one of `OUTPUT_SUFFIXES`.
        rgb: sRGB-coded values [1, 3, H, W]; clamped to 0 ... 1.
        like: the input: gray, bit depth and profile are taken from it.
        alpha: opacity [1, 1, H, W], or None.
        made_with: what the picture says of how it was made; None for nothing.
        quality: of JPEG, WebP and AVIF, 1 ... 100; None for the format's own.
        strip: leave out the metadata and the profile of ``like``.

    Returns:
        What the format could not keep, one phrase each.

    Raises:
        ImageError: the format cannot hold an image of this size.
        ResourceError: the file could not be written.
    """
    form = PixelForm.of(path, like, transparent=alpha is not None)
    pixels = form.codes(rgb, alpha)
    return write_pixels(path, pixels, form, like, made_with=made_with, quality=quality, strip=strip)


def write_pixels(
    path: Path,
    pixels: NDArray[Any],
    form: PixelForm,
    like: LoadedImage,
    *,
    made_with: Mapping[str, Setting] | None = None,
    quality: int | None = None,
    strip: bool = False,
) -> list[str]:
    """`write_image` of values that are integers already.

    Args:
        path: ends in one of `OUTPUT_SUFFIXES`.
        pixels: as `PixelForm.codes` gives them.
        form: `PixelForm.of` the same path and input.
        like: the input.
        made_with: as `write_image` takes it.
        quality: likewise.
        strip: likewise.

    Returns:
        What the format could not keep, one phrase each.

    Raises:
        ImageError: the format cannot hold an image of this size.
        ResourceError: the file could not be written.
    """
    suffix = path.suffix.lower()
    check_output_size(path, pixels.shape[1], pixels.shape[0])
    notes = list(form.notes)
    image = form.to_vips(pixels)
    if not strip:
        image = with_metadata(image, like.metadata)
        if suffix in _LACKS_EXIF and like.metadata.has_exif:
            notes.append(f"EXIF left out, which is not written to {suffix}")
    if made_with is not None:
        image = with_record(image, suffix, made_with)
    profile = "srgb" if like.has_profile and not like.gray and not strip else None
    try:
        with replacing(path) as partial, collected_warnings():
            _save(image, partial, suffix, profile, quality)
    except (OSError, pyvips.Error) as error:
        reason = first_line(error) if isinstance(error, pyvips.Error) else error.strerror
        raise ResourceError(
            f"{path}: could not be written ({reason})", hint="free disk space, or choose another -o"
        ) from error
    for note in notes:
        logger.info("%s: %s", path, note)
    return notes


def read_preview(path: Path, *, side_px: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """A JPEG of the image at ``path``, upright and on white, no side longer than ``side_px``.

    Raises:
        ImageError: as `read_image`.
    """
    loaded = decode(open_image(path, max_pixels=max_pixels), max_pixels=max_pixels)
    rgb = loaded.rgb if loaded.alpha is None else on_white(loaded.rgb, loaded.alpha)
    form = PixelForm(gray=False, alpha=False, flattened=False, deep=False, notes=())
    image = form.to_vips(form.codes(rgb, None))
    small = image.thumbnail_image(side_px, height=side_px, size="down")
    data: bytes = small.jpegsave_buffer(Q=PREVIEW_QUALITY)
    return data


def _save(
    image: pyvips.Image, path: Path, suffix: str, profile: str | None, quality: int | None
) -> None:
    """Encode ``image`` into ``path``, whose own extension does not matter."""
    options = {} if profile is None else {"profile": profile}
    if suffix in {".jpg", ".jpeg"}:
        image.jpegsave(str(path), Q=quality or JPEG_QUALITY, optimize_coding=True, **options)
    elif suffix == ".webp":
        image.webpsave(str(path), Q=quality or WEBP_QUALITY, **options)
    elif suffix == ".avif":
        image.heifsave(str(path), Q=quality or AVIF_QUALITY, compression="av1", **options)
    elif suffix in {".tif", ".tiff"}:
        image.tiffsave(
            str(path), compression="deflate", predictor="horizontal", bigtiff=True, **options
        )
    elif suffix == ".png":
        image.pngsave(str(path), **options)
    else:
        raise ValueError(f"{suffix} is not one of {', '.join(sorted(OUTPUT_SUFFIXES))}")
