"""Which files of a folder are images, and what the formats' files are called.

Nothing heavy is imported.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from runtime.remote.place import Place, RemotePath
from schemas.errors import UsageError
from schemas.places import absent

OUTPUT_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif"})
"""Extensions that results can be written in."""

INPUT_SUFFIXES = OUTPUT_SUFFIXES | {
    *(".jpe", ".jfif"),
    *(".apng", ".gif"),
    *(".heic", ".heif", ".hif"),
}
"""Extensions that make a file in a folder an input: those of every format that is read
(`runtime.images.formats`). A file named itself may have any."""

_SHOWN_SUFFIXES = 4


AnyPlace = TypeVar("AnyPlace", Path, RemotePath)


@dataclass(frozen=True)
class FolderContent(Generic[AnyPlace]):
    """What a folder holds for a program that wants images.

    Attributes:
        images: by extension, hidden files left out; sorted, at least one.
        skipped: the other files that are not hidden; sorted.
    """

    images: tuple[AnyPlace, ...]
    skipped: tuple[AnyPlace, ...]

    @property
    def note(self) -> str:
        """What is skipped, as one phrase, or an empty string."""
        count = len(self.skipped)
        if not count:
            return ""
        files = "1 file" if count == 1 else f"{count} files"
        return f"{files} skipped ({_suffixes(self.skipped)})"


def scan_folder(folder: Path, *, recursive: bool = False) -> FolderContent[Path]:
    """Tell the images in ``folder`` from its other files.

    Args:
        folder: to be looked into.
        recursive: whether to look into its folders too, but for hidden ones and links.

    Raises:
        UsageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        if folder.exists():
            raise UsageError(f"{folder}: is not a folder")
        message, hint = absent(folder, "folder")
        raise UsageError(message, hint=hint)
    # macOS puts a hidden `._a.jpg` beside `a.jpg` on foreign disks, which is no image.
    files = sorted(_files(folder, recursive=recursive))
    images = tuple(path for path in files if path.suffix.lower() in INPUT_SUFFIXES)
    skipped = tuple(path for path in files if path.suffix.lower() not in INPUT_SUFFIXES)
    content = FolderContent(images, skipped)
    if not images:
        raise no_images(folder, content.note)
    return content


def no_images(folder: Place, note: str) -> UsageError:
    """The error of a folder without images, with a note of what it has."""
    return UsageError(
        f"{folder}: no image in this folder" + (f"; {note}" if note else ""),
        hint=f"images are files that end in {', '.join(sorted(INPUT_SUFFIXES))}",
    )


def _files(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """Files that are not hidden; the listing itself says what is one, without a look at each.

    A link to nothing is one, too: whoever reads it fails, where leaving it out would tell nobody
    that a picture is missing.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_file(entry):
                yield folder / entry.name
            elif recursive and entry.is_dir(follow_symlinks=False):
                yield from _files(folder / entry.name, recursive=True)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:  # a link that leads back to itself
        return True


def images_in(folder: Path) -> list[Path]:
    """The images in ``folder``: as `scan_folder`, for callers that want no more."""
    return list(scan_folder(folder).images)


def _suffixes(files: Sequence[Place]) -> str:
    """The different extensions of ``files``, the first few of them."""
    found = sorted({path.suffix.lower() or "no extension" for path in files})
    more = ", …" if len(found) > _SHOWN_SUFFIXES else ""
    return ", ".join(found[:_SHOWN_SUFFIXES]) + more
