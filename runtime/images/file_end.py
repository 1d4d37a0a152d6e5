"""Whether a picture's file is there to its end, told without decoding it."""

import os
from pathlib import Path

from runtime.images.formats import JPEG, PNG, START_BYTES, WEBP, recognize

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"


def has_its_end(path: Path) -> bool:
    """Whether a file that qrun wrote is complete, as far as its two ends tell.

    True for a TIFF: libtiff writes the directory last, without which the file does not open.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_PNG_END)))
        end = file.read()
    found = recognize(start)
    if found is PNG:
        return end == _PNG_END
    if found is JPEG:
        return end.endswith(_JPEG_END)
    if found is WEBP:
        return size >= 8 + int.from_bytes(start[4:8], "little")
    return True
