"""Which files of a folder are images. Nothing heavy is imported."""

from pathlib import Path

from schemas.errors import UsageError

OUTPUT_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})
"""Extensions that results can be written in."""

INPUT_SUFFIXES = OUTPUT_SUFFIXES | {".gif", ".heic", ".heif", ".avif"}
"""Extensions that make a file in a folder an input; a file named itself may have any."""


def images_in(folder: Path) -> list[Path]:
    """The images in ``folder``, by extension, not deeper; sorted, at least one.

    Raises:
        UsageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise UsageError(f"{folder}: {what}")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in INPUT_SUFFIXES and path.is_file()
    )
    if not found:
        raise UsageError(f"{folder}: no image in this folder")
    return found
