"""Writes the page: whole where its pictures are few, else with links to the files.

A browser shows JPEG, PNG, WebP, GIF and AVIF as they are. Of other files (TIFF, HEIC) the page
holds a smaller JPEG.
"""

import base64
import html
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from artifacts.files.whole_file import write_text
from runtime.compare.place import MARK
from runtime.images.batch import DEFAULT_MAX_PIXELS, Outcome
from runtime.images.formats import START_BYTES, describe_shown
from runtime.images.image_io import read_preview
from schemas.errors import ImageError

MOST_INSIDE_BYTES = 24_000_000
"""Pictures that together are larger stay files of their own."""
PREVIEW_SIDE_PX = 2048
_SIGNS = {"<!--STYLE-->": "compare.css", "<!--SCRIPT-->": "compare.js"}


class _Picture(NamedTuple):
    """One side of a comparison.

    Attributes:
        path: the file.
        type: of what the page shows, as browsers call it.
        data: the bytes of a smaller picture in place of the file, or None.
    """

    path: Path
    type: str
    data: bytes | None


def write_comparison(page: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write a page of every image that was done, or had been before; list those that failed.

    Returns:
        ``page``.

    Raises:
        ResourceError: it cannot be written.
    """
    shown: list[tuple[Outcome, _Picture, _Picture]] = []
    failed: list[str] = []
    for outcome in outcomes:
        if outcome.status == "failed":
            failed.append(outcome.error)
            continue
        try:
            sides = _picture(Path(str(outcome.job.source))), _picture(Path(str(outcome.job.output)))
        except (ImageError, OSError) as error:
            failed.append(str(error))
        else:
            shown.append((outcome, *sides))
    total = sum(_bytes(before) + _bytes(after) for _, before, after in shown)
    inside = total <= MOST_INSIDE_BYTES
    figures = [
        _figure(outcome, _source(before, page, inside=inside), _source(after, page, inside=inside))
        for outcome, before, after in shown
    ]
    text = _part("compare.html").replace("<!--MARK-->", MARK)
    for sign, name in _SIGNS.items():
        text = text.replace(sign, _part(name))
    text = text.replace("<!--COUNT-->", f"{len(shown)} picture{'' if len(shown) == 1 else 's'}")
    text = text.replace("<!--FAILED-->", _failures(failed))
    # Last: nothing of a name is taken for a sign.
    write_text(page, text.replace("<!--FIGURES-->", "\n".join(figures)))
    return page


def _picture(path: Path) -> _Picture:
    """What the page shows of ``path``.

    Raises:
        OSError, ImageError: it cannot be read.
    """
    with path.open("rb") as file:
        shown = describe_shown(file.read(START_BYTES))
    if shown:
        return _Picture(path, shown, None)
    preview = read_preview(path, side_px=PREVIEW_SIDE_PX, max_pixels=DEFAULT_MAX_PIXELS)
    return _Picture(path, "image/jpeg", preview)


def _bytes(picture: _Picture) -> int:
    return picture.path.stat().st_size if picture.data is None else len(picture.data)


def _source(picture: _Picture, page: Path, *, inside: bool) -> str:
    """What ``src`` of an image is: its data, or the way from the page to the file."""
    if picture.data is None and not inside:
        return quote(os.path.relpath(picture.path, page.parent).replace(os.sep, "/"))
    data = picture.path.read_bytes() if picture.data is None else picture.data
    return f"data:{picture.type};base64,{base64.b64encode(data).decode('ascii')}"


def _figure(outcome: Outcome, before: str, after: str) -> str:
    name = html.escape(outcome.job.source.name)
    details = outcome.details or {}
    facts = ""
    if details:
        facts = f"{details['width_px']} × {details['height_px']} px, {details['seconds']:.1f} s"
    return (
        f'<figure><div class="view"><img class="after" src="{after}" alt="{name}, after">'
        f'<img class="before" src="{before}" alt="{name}, before">'
        f'<input type="range" min="0" max="100" value="50" step="0.1" aria-label="{name}: before to'
        ' the left, after to the right"><span class="line"></span></div>'
        f"<figcaption><b>{name}</b> <span>{facts}</span>"
        '<button type="button">full size</button></figcaption></figure>'
    )


def _failures(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in failed)
    return f"<section><h2>Not done: {len(failed)}</h2><ul>{lines}</ul></section>"


def _part(name: str) -> str:
    return files("runtime.compare").joinpath("web", name).read_text(encoding="utf-8")
