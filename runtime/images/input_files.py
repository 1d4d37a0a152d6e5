"""From the arguments of a command to the files that they stand for. Nothing heavy is imported."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.images.folder import scan_folder
from runtime.remote.place import Place, RemotePath, identity
from schemas.errors import UsageError
from schemas.places import absent

MAX_ALTERNATIVES = 1000
"""How many patterns the braces of one argument may stand for; every pair doubles them."""

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class InputFile:
    """One file of a batch.

    Attributes:
        path: of the file.
        subfolder: where it lies in the folder that was given; ``.`` for what lies in it directly,
            and for files that were named themselves.
    """

    path: Place
    subfolder: Path = Path()


def input_files(
    inputs: Sequence[Place], note: Callable[[str], None], *, recursive: bool = False
) -> list[InputFile]:
    """Return the files that ``inputs`` stand for, each path once, in their order.

    Two links to one file are two inputs, and so are two names that differ in Unicode's form alone:
    a path is what the user sees.

    Args:
        inputs: files, folders (the images in them), or patterns such as ``*.png`` or
            ``**/{a,b}.jpg`` that the shell left alone; or URLs of these.
        recursive: whether a folder also stands for what lies deeper in it.
        note: is told what a folder holds beside images.

    Raises:
        UsageError: an input is missing, a folder has no image, or a pattern matches nothing.
    """
    files = [file for given in inputs for file in _expand(given, note, recursive=recursive)]
    return list({identity(file.path): file for file in files}.values())


def _expand(given: Place, note: Callable[[str], None], *, recursive: bool) -> Sequence[InputFile]:
    """Return the files that one argument stands for; at least one."""
    if isinstance(given, RemotePath):
        return _expand_remote(given, note, recursive=recursive)
    if given.is_dir():
        content = scan_folder(given, recursive=recursive)
        if content.note:
            note(f"{given}: {content.note}")
        return [InputFile(path, path.parent.relative_to(given)) for path in content.images]
    if given.exists():
        return [InputFile(given)]
    text = str(given)
    if any(sign in text for sign in "*?[{"):
        found = {path for pattern in _alternatives(text) for path in _matches(pattern)}
        if found:
            return [InputFile(path) for path in sorted(found)]
        raise UsageError(f"{given}: no file matches")
    message, hint = absent(given, "file or folder")
    raise UsageError(message, hint=hint)


def _expand_remote(
    given: RemotePath, note: Callable[[str], None], *, recursive: bool
) -> Sequence[InputFile]:
    """The same of a URL."""
    from runtime.remote.listing import matches, scan_remote, subfolder  # noqa: PLC0415

    if given.is_dir():
        content = scan_remote(given, recursive=recursive)
        if content.note:
            note(f"{given}: {content.note}")
        return [InputFile(path, subfolder(path, given)) for path in content.images]
    if given.exists():
        return [InputFile(given)]
    found = matches(given) if any(sign in given.url for sign in "*?[") else []
    if not found:
        raise UsageError(f"{given}: no such file or folder, and no file matches")
    return [InputFile(path) for path in found]


def _alternatives(pattern: str) -> list[str]:
    """Return the patterns that ``{a,b}`` stands for, as a shell has it; innermost braces first.

    Raises:
        UsageError: there are too many.
    """
    done, waiting = [], [pattern]
    while waiting:
        current = waiting.pop()
        braces = _BRACES.search(current)
        if braces is None:
            done.append(current)
        else:
            before, after = current[: braces.start()], current[braces.end() :]
            waiting += [before + choice + after for choice in braces[1].split(",")]
        if len(done) + len(waiting) > MAX_ALTERNATIVES:
            raise UsageError(f"{pattern}: stands for more than {MAX_ALTERNATIVES} patterns")
    return done


def _matches(pattern: str) -> Iterator[Path]:
    """The files, not hidden, that ``pattern`` matches; ``**`` stands for any number of folders."""
    for name in glob.iglob(pattern, recursive=True):  # noqa: PTH207  pathlib's refuses `a**`
        path = Path(name)
        if path.is_file():
            yield path
