"""What the samples of an image mean: which colour space, which number format, which channels.

===================  ===============  =============================================================
colour space         samples          read as
===================  ===============  =============================================================
gray, RGB, CMYK      8 bits           they are
gray, RGB, CMYK      16 bits          they are
gray, RGB, CMYK      floating point   0 ... 1, coded like integers (sRGB, or the embedded profile)
CIELab               16 bits, float   under D50, as TIFF's readers have it
===================  ===============  =============================================================

Gray, RGB and CMYK may have an alpha channel. Everything else has no range that the file declares
(signed and 32-bit integers), or no colours (several channels of unknown meaning), and is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyvips

from schemas.errors import ImageError

Space = Literal["gray", "RGB", "CMYK", "CIELab"]
Samples = Literal["8 bits", "16 bits", "floating point"]

SAMPLE_BYTES = {
    **{"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4},
    **{"complex": 8, "double": 8, "dpcomplex": 16},
}
"""Bytes of one sample, by libvips' name for its type."""

_TYPE_NAMES = {
    "char": "signed 8-bit integers",
    "short": "signed 16-bit integers",
    "int": "signed 32-bit integers",
    "uint": "unsigned 32-bit integers",
    "double": "64-bit floating-point numbers",
    "complex": "complex numbers",
    "dpcomplex": "complex numbers",
}

_SPACES: dict[str, Space] = {
    **{"b-w": "gray", "grey16": "gray"},
    **{"srgb": "RGB", "rgb": "RGB", "rgb16": "RGB", "scrgb": "RGB"},
    **{"cmyk": "CMYK", "lab": "CIELab", "labs": "CIELab"},
}
_CHANNELS: dict[Space, int] = {"gray": 1, "RGB": 3, "CMYK": 4, "CIELab": 3}
_SAMPLES: dict[str, Samples] = {"uchar": "8 bits", "ushort": "16 bits", "float": "floating point"}


@dataclass(frozen=True)
class SampleKind:
    """What the samples of an image mean.

    Attributes:
        space: of the colours.
        samples: number format; CIELab is ``floating point`` in either.
        has_alpha: whether an alpha channel follows the colours.
    """

    space: Space
    samples: Samples
    has_alpha: bool

    @property
    def channels(self) -> int:
        """How many channels the colours have, without alpha."""
        return _CHANNELS[self.space]


def sample_kind(image: pyvips.Image, path: Path) -> SampleKind:
    """Tell from its header what the samples of ``image`` mean.

    Raises:
        ImageError: nothing that is read; says what.
    """
    space = _SPACES.get(image.interpretation)
    count = "1 channel" if image.bands == 1 else f"{image.bands} channels"
    if image.coding != "none" or space is None:
        raise ImageError(
            f"{path}: {count} of the kind {image.interpretation!r} have no meaning as colours",
            hint="gray, RGB, CMYK and CIELab are read; save it as one of them",
        )
    extra = image.bands - _CHANNELS[space]
    if extra not in ({0} if space == "CIELab" else {0, 1}):
        raise ImageError(
            f"{path}: {count}, but {space} has {_CHANNELS[space]}"
            + ("" if space == "CIELab" else ", or one more for alpha"),
            hint="save the channels that are the picture by themselves",
        )
    if space == "CIELab" and image.format in {"short", "float"}:
        return SampleKind(space, "floating point", has_alpha=False)
    samples = _SAMPLES.get(image.format)
    if samples is None or space == "CIELab":
        name = _TYPE_NAMES.get(image.format, image.format)
        raise ImageError(
            f"{path}: {space} samples that are {name} do not say which value is white",
            hint="save it with 8 or 16 bits, or as floating-point numbers of 0 ... 1",
        )
    return SampleKind(space, samples, has_alpha=extra == 1)
