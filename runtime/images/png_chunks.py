"""What libvips does not tell of a PNG: an animated one's frames, and a profile that it dropped."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAX_CHUNKS = 1000
"""Chunks before the pixels; files have a dozen."""
_SIGNATURE_BYTES = 8


def animation_frames(path: Path) -> int:
    """The frames that a PNG's ``acTL`` chunk announces (APNG), or 1 without one.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for kind in _kinds_before_pixels(file):
            if kind == b"acTL":
                return max(1, int.from_bytes(file.read(4), "big"))
    return 1


def relies_on_profile(path: Path) -> bool:
    """Whether a PNG brings an ICC profile (``iCCP``), and does not call itself sRGB besides.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        kinds = set(_kinds_before_pixels(file))
    return b"iCCP" in kinds and b"sRGB" not in kinds


def _kinds_before_pixels(file: BinaryIO) -> Iterator[bytes]:
    """Kind after kind of chunk; the file then stands before that chunk's content."""
    file.seek(_SIGNATURE_BYTES)
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if len(header) < 8 or kind in {b"IDAT", b"IEND"}:
            break
        content = file.tell()
        yield kind
        file.seek(content + length + 4)  # the content and its checksum
