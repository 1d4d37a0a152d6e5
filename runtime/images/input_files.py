"""From the arguments of a command to the files that they stand for. Nothing heavy is imported."""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runtime.images.folder import scan_folder
from schemas.errors import UsageError
from schemas.places import absent

MAX_ALTERNATIVES = 1000
"""How many patterns the braces of one argument may stand for; every pair doubles them."""

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def input_files(inputs: Sequence[Path], note: Callable[[str], None]) -> list[Path]:
    """Return the files that ``inputs`` stand for, each path once, in their order.

    Two links to one file are two inputs, and so are two names that differ in Unicode's form alone:
    a path is what the user sees.

    Args:
        inputs: files, folders (the images in them, not deeper), or patterns such as ``*.png`` or
            ``**/{a,b}.jpg`` that the shell left alone.
        note: is told what a folder holds beside images.

    Raises:
        UsageError: an input is missing, a folder has no image, or a pattern matches nothing.
    """
    files = [path for given in inputs for path in _expand(given, note)]
    # Not `resolve`, which would follow links.
    return list({os.path.abspath(path): path for path in files}.values())  # noqa: PTH100


def _expand(given: Path, note: Callable[[str], None]) -> Sequence[Path]:
    """Return the files that one argument stands for; at least one."""
    if given.is_dir():
        content = scan_folder(given)
        if content.note:
            note(f"{given}: {content.note}")
        return content.images
    if given.exists():
        return [given]
    text = str(given)
    if any(sign in text for sign in "*?[{"):
        found = {path for pattern in _alternatives(text) for path in _matches(pattern)}
        if found:
            return sorted(found)
        raise UsageError(f"{given}: no file matches")
    message, hint = absent(given, "file or folder")
    raise UsageError(message, hint=hint)


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
