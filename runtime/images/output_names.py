"""Where results go: what ``-o`` means, and names that keep results apart.

Nothing heavy is imported.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.images.folder import OUTPUT_SUFFIXES
from runtime.remote.place import Place, as_place, identity
from schemas.errors import UsageError

ENDING = "_x4.png"
"""What a result's name has behind its input's stem unless told otherwise."""
_EXTENSION = re.compile(r"\.\w+")
"""What the end of a name has to look like to say a format: ``.gif``, and not ``.0 final``."""


@dataclass(frozen=True)
class OutputPlace:
    """What ``-o`` means.

    Attributes:
        path: as it was given.
        is_file: whether it is the result itself, and not the folder of results.
    """

    path: Place
    is_file: bool


def output_place(out: str) -> OutputPlace:
    """Tell whether ``-o`` names a file or a folder.

    A folder is what exists as one, ends with a slash, or has no extension. Everything else is a
    file, and has to end like a format that can be written.

    Raises:
        UsageError: it does not, it is a device or the like, or the file's folder does not exist.
    """
    path = as_place(out)
    if out == "-":
        raise UsageError("-o -: results are files", hint="name a file or a folder")
    if isinstance(path, Path) and path.exists() and not (path.is_dir() or path.is_file()):
        raise UsageError(f"{out} is neither a folder nor a regular file")
    if out.endswith(("/", os.sep)) or not _EXTENSION.fullmatch(path.suffix) or path.is_dir():
        return OutputPlace(path, is_file=False)
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise UsageError(
            f"{out}: results cannot be written as {path.suffix}, but as"
            f" {', '.join(sorted(OUTPUT_SUFFIXES))}",
            hint=f"a folder of that name would be {out}/",
        )
    if isinstance(path, Path) and not path.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {path.parent}", hint="make it first")
    return OutputPlace(path, is_file=True)


def result_paths(
    sources: Sequence[Place], folders: Sequence[Place], keys: "FileKeys", ending: str = ENDING
) -> list[Place]:
    """Return where the result of every source goes, each into its own of ``folders``.

    ``<stem>_x4.png``, or another ``ending``; results that would have one name get longer ones,
    each as short as it can be (`candidate_names`), and the others keep theirs.
    """
    names = [candidate_names(source, ending) for source in sources]
    lengths = [0] * len(sources)
    while True:
        paths: list[Place] = [
            folder / choices[length]
            for folder, choices, length in zip(folders, names, lengths, strict=True)
        ]
        found = [keys.of(path) for path in paths]
        count = Counter(found)
        clashing = [
            index
            for index, key in enumerate(found)
            if count[key] > 1 and lengths[index] + 1 < len(names[index])
        ]
        if not clashing:
            return paths
        for index in clashing:
            lengths[index] += 1


def candidate_names(source: Place, ending: str = ENDING) -> tuple[str, ...]:
    """Names for the result of ``source``, from the shortest to one that is its own.

    ``a_x4.png``, ``a_jpg_x4.png``, ``folder_a_jpg_x4.png``, and the same with a digest of the path.
    """
    absolute = identity(source)
    kind = f"_{source.suffix[1:]}" if source.suffix else ""
    folder = Path(absolute).parent.name.lstrip(".")  # a result is no hidden file
    long = f"{folder}_{source.stem}{kind}" if folder else f"{source.stem}{kind}"
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:8]
    stems = (source.stem, f"{source.stem}{kind}", long, f"{long}_{digest}")
    return tuple(f"{stem}{ending}" for stem in stems)


class FileKeys:
    """What makes two paths one place for a result: links of folders followed, one Unicode form.

    Some file systems take the composed and the decomposed form of a letter for one name. A link at
    the end is not followed: a result replaces it. Folders are resolved once.
    """

    def __init__(self) -> None:
        self._resolved: dict[Place, str] = {}

    def key(self, folder: Place, name: str) -> str:
        """The key of the file ``name`` in ``folder``."""
        if folder not in self._resolved:
            place = folder.resolve() if isinstance(folder, Path) else folder
            self._resolved[folder] = str(place)
        # Joined as text: a path object for each of many thousand files takes seconds.
        return unicodedata.normalize("NFC", f"{self._resolved[folder]}{os.sep}{name}")

    def of(self, path: Place) -> str:
        """The key of ``path``."""
        return self.key(path.parent, path.name)
