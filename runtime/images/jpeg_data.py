"""JPEG files that are not whole: read where the decoder has the whole picture, and said.

libjpeg never stops: where data are missing or wrong it warns, and goes on with a guess. A first
attempt looks for any warning. Where only the end is missing, the file is decoded once more with an
end, which shows whether anything else is. Where data are wrong, but none are missing, the guess is
taken.
"""

from pathlib import Path

import pyvips

from runtime.images.formats import JPEG
from runtime.images.jpeg_scans import has_all_scans
from runtime.images.opening import first_line, load, open_source
from runtime.images.vips_warnings import collected_warnings

END_OF_IMAGE = b"\xff\xd9"

_MISSING_END = "premature end of JPEG image"
_MISSING_PART = "premature end of data segment"

_LOADER = "VipsJpeg: "
"""What begins libjpeg's own words, among those of libvips about them."""


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
    with open_source(path) as source:
        image, reason = _try(source)
    if not reason:
        return image, []
    missing = _MISSING_END in reason or _MISSING_PART in reason
    if _MISSING_END in reason and path.stat().st_size <= max_bytes:
        data = path.read_bytes()
        whole = pyvips.Source.new_from_memory(data + END_OF_IMAGE)
        image, still_wrong = _try(whole)
        if not still_wrong and has_all_scans(data):
            return image, ["its last bytes are missing, but the picture is complete"]
    if missing:
        raise pyvips.Error("", detail=reason)
    with open_source(path) as source:
        return _decode(source, fail_on="truncated"), [f"damaged ({reason}): look at the result"]


def _try(source: pyvips.Source) -> tuple[pyvips.Image | None, str]:
    """Decode; return the image, if there is one, and what libjpeg warned of first, if it did.

    A warning stops libvips before the next rows, so one in the last rows is only in its log.
    """
    with collected_warnings() as warnings:
        try:
            image = load(JPEG, source, fail_on="warning").copy_memory()
        except pyvips.Error as error:
            return None, first_line(error).removeprefix(_LOADER)
    said = (warning.partition(_LOADER)[2] for warning in warnings if _LOADER in warning)
    # A log entry holds all warnings so far.
    return image, next((warning.split(f" {_LOADER}")[0] for warning in said), "")


def _decode(source: pyvips.Source, *, fail_on: str) -> pyvips.Image:
    with collected_warnings():
        return load(JPEG, source, fail_on=fail_on).copy_memory()
