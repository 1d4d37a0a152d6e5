"""Captions of single images: a folder with one text file for each, named after the image."""

from collections.abc import Iterable
from pathlib import Path

from runtime.remote.place import Place
from schemas.errors import UsageError
from schemas.places import absent

MAX_BYTES = 64 * 1024
"""Longest file read. Text encoders look at the first 256 tokens, about a kilobyte."""


def read_captions(folder: Path, images: Iterable[Place]) -> dict[Place, str]:
    """Read ``NAME.txt`` for every image ``NAME.png`` that has one.

    Args:
        folder: of the text files.
        images: any files; only their names count.

    Returns:
        Image -> its caption on one line; an empty file is the empty prompt.

    Raises:
        UsageError: there is no such folder, it has no file for any of the images, or a file is too
            long or no UTF-8 text.
    """
    if not folder.is_dir():
        message, hint = absent(folder, "folder")
        raise UsageError(message, hint=hint)
    sources = list(images)
    found = {}
    for image in sources:
        file = folder / f"{image.stem}.txt"
        if file.is_file():
            found[image] = _read(file)
    if not found and sources:
        raise UsageError(
            f"{folder}: has no caption for any of the {len(sources)} images",
            hint=f"that of {sources[0].name} would be {sources[0].stem}.txt",
        )
    return found


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as cause:
        raise UsageError(f"{file}: cannot be read: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise UsageError(f"{file}: not UTF-8 text") from cause
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file}: longer than {MAX_BYTES} bytes, too long for a caption")
    return " ".join(text.split())
