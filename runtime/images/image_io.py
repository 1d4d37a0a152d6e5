"""Reading images into sRGB tensors and writing results that look like their inputs.

The network sees three channels of sRGB. What an image has beside that is put back or said:

================  ===============================================================================
input             result
================  ===============================================================================
gray              processed as RGB, written as gray
alpha             enlarged on its own (bicubic) and put back; JPEG has none: flattened on white
16 bits           16 bits in PNG and TIFF, 8 in JPEG and WebP
EXIF orientation  applied; other metadata is not copied
ICC profile       converted to sRGB; the result carries an sRGB profile (gray: none, it is sRGB's)
CMYK              converted to sRGB
palette           expanded to RGB
pages, frames     the first one
================  ===============================================================================

Every conversion that loses something is said in ``notes`` and in this module's log.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from artifacts.files.whole_file import replacing
from runtime.images.batch import DEFAULT_MAX_PIXELS
from runtime.images.folder import OUTPUT_SUFFIXES
from runtime.images.made_with import Setting, with_record
from schemas.errors import ImageError, ResourceError

logger = logging.getLogger(__name__)

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in gray (ITU-R BT.709); they sum to 1, so gray stays gray."""

JPEG_QUALITY = 95
WEBP_QUALITY = 92

_MAX_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
"""Longest side that a format can hold, where it has a limit that an upscaled image can meet."""

_DEEP_SUFFIXES = {".png", ".tif", ".tiff"}
_HAS_TRANSPARENCY = OUTPUT_SUFFIXES - {".jpg", ".jpeg"}

# Loaders that libvips itself marks as unsafe for files from strangers (SVG, PDF, ...) stay closed.
pyvips.block_untrusted_set(True)


@dataclass(frozen=True)
class Header:
    """What an image says about itself before any pixel is decoded.

    Attributes:
        width, height: as stored, in px; the EXIF orientation may exchange them.
    """

    width: int
    height: int


@dataclass(frozen=True)
class LoadedImage:
    """One decoded image.

    Attributes:
        rgb: sRGB-coded values [1, 3, H, W], float32, 0 ... 1.
        alpha: opacity [1, 1, H, W], float32, 0 ... 1, or None.
        gray: whether the three channels were one.
        sample_bits: 8 or 16, per channel.
        has_profile: whether an ICC profile was embedded.
        notes: conversions the user should know of, one phrase each.
    """

    rgb: Tensor
    alpha: Tensor | None
    gray: bool
    sample_bits: int
    has_profile: bool
    notes: tuple[str, ...]


def read_header(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """Check from its header that an image can be decoded at all.

    Args:
        path: any file.
        max_pixels: refuse images with more pixels than this.

    Raises:
        ImageError: the file is missing, empty, not an image, or larger than allowed.
    """
    image = _open(path)
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageError(
            f"{path}: {image.width} x {image.height} px is {pixels / 1e6:,.1f} megapixels, more"
            f" than the {max_pixels / 1e6:,.1f} allowed; the result would have"
            f" {4 * image.width} x {4 * image.height}",
            hint=f"--max-pixels {pixels} allows it, if the memory is there",
        )
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
    read_header(path, max_pixels=max_pixels)
    try:
        # Sequential reading stops at the first damaged row; the copy lets autorot turn the image.
        return _decode(path, _open(path).copy_memory())
    except pyvips.Error as error:
        raise ImageError(
            f"{path}: truncated or damaged image ({_first_line(error)})",
            hint="save it again from its source",
        ) from error


def _open(path: Path) -> pyvips.Image:
    """Read the header of ``path``."""
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        # A source takes the name as it is; new_from_file would read "[...]" at its end as options,
        # and would serve a file that changed since from libvips' cache.
        source = pyvips.Source.new_from_file(str(path))
        return pyvips.Image.new_from_source(source, "", access="sequential", fail_on="truncated")
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    except pyvips.Error as error:
        raise ImageError(
            f"{path}: not a readable image ({_first_line(error)})",
            hint="JPEG, PNG, WebP, TIFF, GIF and HEIF are read",
        ) from error


def _first_line(error: pyvips.Error) -> str:
    """The first thing that libvips itself said, without its prefix."""
    lines = [line.strip() for line in (error.detail or error.message).splitlines()]
    return next((line for line in lines if line), "no reason given")


def _decode(path: Path, image: pyvips.Image) -> LoadedImage:
    """Turn an image in memory, read from ``path``, into tensors."""
    fields = set(image.get_fields())
    notes = []
    if "n-pages" in fields and image.get("n-pages") > 1:
        notes.append(f"only the first of {image.get('n-pages')} pages is read")
    if "palette" in fields:
        notes.append("palette expanded")
    image = image.autorot()

    deep = image.format not in {"uchar", "char"}
    alpha = None
    if image.hasalpha():
        alpha = _opacity(image[image.bands - 1], image.interpretation)
        image = image[: image.bands - 1]
    gray = image.bands == 1

    has_profile = "icc-profile-data" in fields
    source_space = image.interpretation
    image, how = _to_srgb(image, deep=deep, has_profile=has_profile)
    if image.bands != 3:
        raise ImageError(
            f"{path}: channels of the kind {source_space!r} have no meaning as colours"
        )
    if source_space == "cmyk":
        notes.append(f"converted from CMYK to sRGB ({how})")
    elif has_profile:
        notes.append(f"converted to sRGB ({how})")
    elif source_space not in {"srgb", "rgb", "rgb16", "b-w", "grey16", "multiband"}:
        notes.append(f"converted from {source_space} to sRGB")

    for note in notes:
        logger.info("%s: %s", path, note)
    return LoadedImage(
        rgb=_to_tensor(image),
        alpha=alpha,
        gray=gray,
        sample_bits=16 if deep else 8,
        has_profile=has_profile,
        notes=tuple(notes),
    )


def _to_srgb(image: pyvips.Image, *, deep: bool, has_profile: bool) -> tuple[pyvips.Image, str]:
    """Return ``image`` as three bands of 8- or 16-bit sRGB, and how it got there."""
    if not has_profile:
        how = "libvips' default profile"
    elif _is_profile(image.get("icc-profile-data")):
        how = "its profile applied"
        image = image.icc_transform("srgb", embedded=True, depth=16 if deep else 8)
    else:
        how = "its profile is damaged and was ignored"
    return image.colourspace("rgb16" if deep else "srgb"), how


def _is_profile(data: bytes) -> bool:
    """Whether ``data`` is an ICC profile as far as its header and tag count tell.

    libvips takes a damaged profile for sRGB without a word; the user should hear of it. Offsets
    are those of ICC.1:2022, section 7; a hundred tags is as many as its reader, lcms, takes.
    """
    declared_bytes = int.from_bytes(data[:4], "big")
    tags = int.from_bytes(data[128:132], "big")
    return data[36:40] == b"acsp" and 132 < declared_bytes <= len(data) and 0 < tags <= 100


def _opacity(band: pyvips.Image, interpretation: str) -> Tensor:
    """Return an alpha band as a tensor [1, 1, H, W], 0 ... 1."""
    # What libvips means by opaque depends on the colours beside it, not on the band's own format.
    opaque = {"rgb16": 65535, "grey16": 65535, "scrgb": 1}.get(interpretation, 255)
    pixels = band.cast("float").numpy()
    return torch.from_numpy(pixels.copy()).div_(opaque).clamp_(0, 1)[None, None]


def _to_tensor(image: pyvips.Image) -> Tensor:
    """Return an 8- or 16-bit image as [1, bands, H, W], 0 ... 1."""
    pixels = image.numpy()
    scaled = torch.from_numpy(pixels.astype(np.float32)).div_(np.iinfo(pixels.dtype).max)
    return scaled.permute(2, 0, 1)[None].contiguous()


def write_image(
    path: Path,
    rgb: Tensor,
    like: LoadedImage,
    *,
    alpha: Tensor | None,
    made_with: Mapping[str, Setting] | None = None,
) -> list[str]:
    """Write ``rgb`` in the format of ``path``'s extension, with the traits of ``like``.

    The file appears whole or not at all: it is written beside its place and moved there.

    Args:
        path: ends in one of `OUTPUT_SUFFIXES`.
        rgb: sRGB-coded values [1, 3, H, W]; clamped to 0 ... 1.
        like: the input: gray, bit depth and profile are taken from it.
        alpha: opacity [1, 1, H, W], or None.
        made_with: what the picture says of how it was made; None for nothing.

    Returns:
        What the format could not keep, one phrase each.

    Raises:
        ImageError: the format cannot hold an image of this size.
        ResourceError: the file could not be written.
    """
    suffix = path.suffix.lower()
    check_output_size(path, rgb.shape[-1], rgb.shape[-2])
    notes = []
    deep = like.sample_bits == 16
    if deep and suffix not in _DEEP_SUFFIXES:
        deep = False
        notes.append(f"16 bits written as 8, which is all that {suffix} holds")
    if alpha is not None and suffix not in _HAS_TRANSPARENCY:
        rgb = alpha * rgb + (1 - alpha)
        alpha = None
        notes.append(f"transparency flattened on white: {suffix} has none")
    if like.gray:
        weights = torch.tensor(LUMA, device=rgb.device).view(1, 3, 1, 1)
        rgb = (rgb * weights).sum(dim=1, keepdim=True)
    channels = rgb if alpha is None else torch.cat([rgb, alpha.to(rgb)], dim=1)

    image = _to_vips(channels, deep=deep, gray=like.gray)
    if made_with is not None:
        image = with_record(image, suffix, made_with)
    profile = "srgb" if like.has_profile and not like.gray else None
    try:
        with replacing(path) as partial:
            _save(image, partial, suffix, profile)
    except (OSError, pyvips.Error) as error:
        reason = _first_line(error) if isinstance(error, pyvips.Error) else error.strerror
        raise ResourceError(
            f"{path}: could not be written ({reason})", hint="free disk space, or choose another -o"
        ) from error
    for note in notes:
        logger.info("%s: %s", path, note)
    return notes


def _to_vips(channels: Tensor, *, deep: bool, gray: bool) -> pyvips.Image:
    """Round [1, bands, H, W] in 0 ... 1 to an 8- or 16-bit image."""
    full_scale, dtype = (65535, np.uint16) if deep else (255, np.uint8)
    scaled = channels[0].float().clamp(0, 1).mul(full_scale).round()
    pixels = scaled.permute(1, 2, 0).cpu().numpy().astype(dtype)
    interpretation = {
        (False, False): "srgb",
        (False, True): "b-w",
        (True, False): "rgb16",
        (True, True): "grey16",
    }[deep, gray]
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    return image.copy(interpretation=interpretation)


def _save(image: pyvips.Image, path: Path, suffix: str, profile: str | None) -> None:
    """Encode ``image`` into ``path``, whose own extension does not matter."""
    options = {} if profile is None else {"profile": profile}
    if suffix in {".jpg", ".jpeg"}:
        image.jpegsave(str(path), Q=JPEG_QUALITY, optimize_coding=True, **options)
    elif suffix == ".webp":
        image.webpsave(str(path), Q=WEBP_QUALITY, **options)
    elif suffix in {".tif", ".tiff"}:
        image.tiffsave(
            str(path), compression="deflate", predictor="horizontal", bigtiff=True, **options
        )
    elif suffix == ".png":
        image.pngsave(str(path), **options)
    else:
        raise ValueError(f"{suffix} is not one of {', '.join(sorted(OUTPUT_SUFFIXES))}")
