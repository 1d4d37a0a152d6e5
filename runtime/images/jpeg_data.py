"""JPEG files that are not whole: read where the decoder has the whole picture, and said.

libjpeg never stops: where data are missing or wrong it warns, and goes on with a guess. A first
attempt stops at any warning. Where only the end is missing, the file is decoded once more with an
end, which shows whether anything else is. Where data are wrong, but none are missing, the guess is
taken.
"""

from pathlib import Path

import pyvips

from runtime.images.formats import JPEG
from runtime.images.opening import first_line, load, open_source
from runtime.images.vips_warnings import collected_warnings

END_OF_IMAGE = b"\xff\xd9"

_MISSING_END = "premature end of JPEG image"
_MISSING_PART = "premature end of data segment"
_DAMAGE = "Corrupt JPEG data"


def decode_jpeg(path: Path, *, max_bytes: int) -> tuple[pyvips.Image, list[str]]:
    """Decode into memory.

    Args:
        path: the file.
        max_bytes: a larger file is not completed, which takes it into memory.

    Returns:
        The image, and what the user should know, one phrase each.

    Raises:
        OSError: the file cannot be read.
        pyvips.Error: it is truncated or damaged.
    """
    try:
        with open_source(path) as source:
            return _decode(source, fail_on="warning"), []
    except pyvips.Error as error:
        reason = first_line(error)
        if _MISSING_END in reason and path.stat().st_size <= max_bytes:
            whole = pyvips.Source.new_from_memory(path.read_bytes() + END_OF_IMAGE)
            note = "its last bytes are missing, but the picture is complete"
            return _decode(whole, fail_on="warning"), [note]
        if _MISSING_PART in reason or _DAMAGE not in reason:
            raise
    with open_source(path) as source:
        note = f"damaged ({reason.removeprefix('VipsJpeg: ')}): look at the result"
        return _decode(source, fail_on="truncated"), [note]


def _decode(source: pyvips.Source, *, fail_on: str) -> pyvips.Image:
    with collected_warnings():
        return load(JPEG, source, fail_on=fail_on).copy_memory()
