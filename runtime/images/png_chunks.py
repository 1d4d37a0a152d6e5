"""What libvips does not tell of a PNG: how many frames an animated one has."""

from pathlib import Path

_MAX_CHUNKS = 1000
"""Chunks before the pixels; files have a dozen."""


def animation_frames(path: Path) -> int:
    """The frames that a PNG's ``acTL`` chunk announces (APNG), or 1 without one.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(_MAX_CHUNKS):
            header = file.read(8)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if len(header) < 8 or kind in {b"IDAT", b"IEND"}:
                break
            if kind == b"acTL":
                return max(1, int.from_bytes(file.read(4), "big"))
            file.seek(length + 4, 1)  # the content and its checksum
    return 1
