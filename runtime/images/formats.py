"""The image formats that are read, told by their first bytes.

Each is opened with its own loader of libvips. Left to itself, libvips also takes text for a matrix,
and formats whose readers are not meant for files from strangers.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """One format.

    Attributes:
        name: as people call it.
        loader: libvips' operation that reads it from a source.
    """

    name: str
    loader: str


JPEG = ImageFormat("JPEG", "jpegload_source")
PNG = ImageFormat("PNG", "pngload_source")
WEBP = ImageFormat("WebP", "webpload_source")
TIFF = ImageFormat("TIFF", "tiffload_source")
GIF = ImageFormat("GIF", "gifload_source")
HEIF = ImageFormat("HEIF", "heifload_source")

FORMATS = (JPEG, PNG, WEBP, TIFF, GIF, HEIF)

START_BYTES = 64
"""How much of a file `recognize` wants to see."""

_HEIF_BRANDS = {
    *(b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"),
    *(b"mif1", b"mif2", b"msf1", b"avif", b"avis"),
}


def _brands(start: bytes) -> set[bytes]:
    """The brands in an ``ftyp`` box: its own, and those that it is compatible with."""
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[8:12], *(start[place : place + 4] for place in range(16, end, 4))}


_STARTS: tuple[tuple[Callable[[bytes], bool], ImageFormat], ...] = (
    (lambda start: start.startswith(b"\xff\xd8\xff"), JPEG),
    (lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), PNG),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP", WEBP),
    (lambda start: start[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}, TIFF),
    (lambda start: start[:6] in {b"GIF87a", b"GIF89a"}, GIF),
    (lambda start: start[4:8] == b"ftyp" and bool(_brands(start) & _HEIF_BRANDS), HEIF),
)

_OTHERS = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the image itself"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"%pdf", "a PDF"),
    (b"bm", "a BMP image"),
    (b"8bps", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL image"),
    (b"\0\0\0\x0cjp  ", "a JPEG 2000 image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?radiance", "a Radiance HDR image"),
    *((b"p%d" % number, "a Netpbm image") for number in range(1, 8)),
)


def recognize(start: bytes) -> ImageFormat | None:
    """The format of a file that begins with ``start``, or None for one that is not read."""
    return next((found for matches, found in _STARTS if matches(start)), None)


_SHOWN = {JPEG: "image/jpeg", PNG: "image/png", WEBP: "image/webp", GIF: "image/gif"}


def describe_shown(start: bytes) -> str:
    """What browsers call a file that begins with ``start`` and that they show; else empty."""
    found = recognize(start)
    if found is HEIF:
        return "image/avif" if _brands(start) & {b"avif", b"avis"} else ""
    return "" if found is None else _SHOWN.get(found, "")


def describe_other(start: bytes) -> str:
    """What a file is instead that begins with ``start``, or an empty string."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for beginning, name in _OTHERS if text.startswith(beginning)), "")
