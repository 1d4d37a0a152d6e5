"""What an image says beside its pixels, for its result: EXIF, XMP, IPTC, printing density.

The orientation is applied to the pixels, so the result says "upright"; EXIF's own preview, which
shows the small image, is left out, and its sizes in pixels are the result's. A profile is no
metadata here: pixels are converted (`runtime.images.profiles`).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyvips

MAX_BYTES = 2**20
"""Most that is taken along: cameras write some 100 kB, previews included."""

_BLOCKS = frozenset({"exif-data", "xmp-data", "iptc-data"})
_EXIF_FIELD = "exif-"
_UPRIGHT = 1
_TECHNICAL = frozenset(
    {
        "exif-data",
        *("exif-ifd0-XResolution", "exif-ifd0-YResolution", "exif-ifd0-ResolutionUnit"),
        *("exif-ifd0-Orientation", "exif-ifd0-YCbCrPositioning", "exif-ifd2-ExifVersion"),
        *("exif-ifd2-FlashpixVersion", "exif-ifd2-ColorSpace", "exif-ifd2-PixelXDimension"),
        *("exif-ifd2-PixelYDimension", "exif-ifd2-ComponentsConfiguration"),
    }
)
"""EXIF fields that any program writes, and that are of the file and not of the picture."""
_UNSAID_DENSITY = 1.0
"""What libvips has where a file says nothing."""


@dataclass(frozen=True)
class Metadata:
    """Metadata of one image, in libvips' words.

    Attributes:
        fields: name -> libvips' type and value.
        density: pixels per millimetre, across and down; None where the file does not say.
    """

    fields: Mapping[str, tuple[int, Any]] = field(default_factory=dict, repr=False)
    density: tuple[float, float] | None = None

    @property
    def has_exif(self) -> bool:
        """Whether EXIF says anything about the picture."""
        return any(n.startswith(_EXIF_FIELD) and n not in _TECHNICAL for n in self.fields)


NO_METADATA = Metadata()


def read_metadata(image: pyvips.Image) -> tuple[Metadata, str]:
    """What is taken along from ``image``, and what the user should know, or an empty string."""
    try:
        names = image.get_fields()
    except UnicodeDecodeError:  # the key of a PNG's text chunk, of which nothing is needed
        names = [name for name in _BLOCKS if image.get_typeof(name)]
    fields = {}
    # The parsed fields go along with the block: libvips writes what both of them have.
    for name in names:
        if name in _BLOCKS or name.startswith(_EXIF_FIELD):
            # A field whose text is none is left out.
            with suppress(UnicodeDecodeError):
                fields[name] = (image.get_typeof(name), image.get(name))
    known = (image.xres, image.yres) != (_UNSAID_DENSITY, _UNSAID_DENSITY)
    density = (image.xres, image.yres) if known and min(image.xres, image.yres) > 0 else None
    size = sum(len(value) for _, value in fields.values())
    if size > MAX_BYTES:
        return Metadata({}, density), f"its metadata ({size:,} bytes) are too large and left out"
    return Metadata(fields, density), ""


def with_metadata(image: pyvips.Image, metadata: Metadata) -> pyvips.Image:
    """``image``, whose pixels stand upright, with ``metadata``."""
    density = metadata.density
    marked = image.copy() if density is None else image.copy(xres=density[0], yres=density[1])
    for name, (kind, value) in metadata.fields.items():
        marked.set_type(kind, name, value)
    if metadata.fields:
        marked.set_type(pyvips.GValue.gint_type, "orientation", _UPRIGHT)
    return marked
