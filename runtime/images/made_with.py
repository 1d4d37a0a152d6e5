"""How a result was made, told by the picture itself.

A result carries one line of JSON: model, sampling settings, prompts, the input's hash. PNG
has it as a text chunk ``qdit4sr``, TIFF as its image description, JPEG, WebP and AVIF as the EXIF
user comment. So a batch that is continued knows which results are finished *with these settings*.

    exiftool -UserComment result.jpg
    python -c "from PIL import Image; print(Image.open('result.png').text['qdit4sr'])"

No path and no machine is named.
"""

import json
import re
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Literal

import pyvips

from runtime.images.file_end import has_its_end
from runtime.images.opening import open_image
from schemas.errors import ImageError

Setting = str | int | float | None
MadeWith = dict[str, Setting]
"""Setting -> value, in words that a user knows."""

State = Literal["absent", "unreadable", "unknown", "finished", "different"]
KEY = "qdit4sr"
_PNG_FIELD = f"png-comment-0-{KEY}"
_PNG_COMMENT = re.compile(rf"png-comment-\d+-{KEY}")
_TIFF_FIELD = "image-description"
_EXIF_FIELD = "exif-ifd2-UserComment"
_FIELDS = {
    ".png": _PNG_FIELD,
    ".tif": _TIFF_FIELD,
    ".tiff": _TIFF_FIELD,
    ".jpg": _EXIF_FIELD,
    ".jpeg": _EXIF_FIELD,
    ".webp": _EXIF_FIELD,
    ".avif": _EXIF_FIELD,
}
LONGEST_SHOWN = 40
"""Of two values that differ, in characters; longer ones are only named."""


def with_record(image: pyvips.Image, suffix: str, made_with: Mapping[str, Setting]) -> pyvips.Image:
    """``image`` with the line that a file of this extension can hold."""
    # Plain ASCII: EXIF comments know nothing else.
    text = json.dumps({KEY: dict(made_with)}, sort_keys=True)
    marked = image.copy()
    marked.set_type(pyvips.GValue.gstr_type, _FIELDS[suffix], text)
    return marked


def read_record(path: Path) -> MadeWith | None:
    """What a picture says of how it was made; None where it says nothing that can be read.

    Raises:
        ImageError: it is no picture.
    """
    image = open_image(path, max_pixels=sys.maxsize).image
    field = _FIELDS.get(path.suffix.lower())
    try:
        names = image.get_fields()
        if field == _PNG_FIELD:
            # Counted among all text chunks of the file, of which XMP is one.
            field = next((name for name in names if _PNG_COMMENT.fullmatch(name)), None)
        if field is None or field not in names:
            return None
        # EXIF values are followed by libvips' own description of them.
        found, _ = json.JSONDecoder().raw_decode(image.get(field))
    except (ValueError, RecursionError):
        return None
    record = found.get(KEY) if isinstance(found, dict) else None
    return record if isinstance(record, dict) else None


def state_of(
    path: Path,
    made_with: Mapping[str, Setting],
    *,
    but: Container[str] = (),
    whole: bool = True,
) -> tuple[State, str]:
    """Whether there is a result at ``path``, and whether it was made as ``made_with`` says.

    Args:
        path: of the result, or of the beginning of one.
        made_with: setting -> value.
        but: settings that are not compared.
        whole: whether the file has to be there to its end.

    Returns:
        The state, and for ``different`` what differs, with both values where they are short.
    """
    if not path.exists():
        return "absent", ""
    try:
        record = read_record(path)
        if whole and not has_its_end(path):
            return "unreadable", ""
    except (ImageError, OSError):
        return "unreadable", ""
    if record is None:
        return "unknown", ""
    differing = [
        _difference(name, record.get(name), made_with.get(name))
        for name in sorted({*record, *made_with})
        if record.get(name) != made_with.get(name) and name not in but
    ]
    return ("different", ", ".join(differing)) if differing else ("finished", "")


def _difference(name: str, old: object, new: object) -> str:
    shown = [_shown(value) for value in (old, new)]
    if max(map(len, shown)) > LONGEST_SHOWN:
        return name
    return f"{name} {shown[0]} (now {shown[1]})"


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    return value if isinstance(value, str) else json.dumps(value)
