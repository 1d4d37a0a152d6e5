"""Files on their way: locked while they are written, so that a killed process' are known."""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artifacts.files.file_lock import is_at, try_lock

_NAME = re.compile(r"\.qrun-\d+-\d+\.part")
_COUNT = itertools.count()


@contextmanager
def partial_file(folder: Path) -> Iterator[Path]:
    """Give an empty file in ``folder`` to write to; it is gone afterwards, unless it was moved.

    Its name keeps processes and threads apart, and is short however long the real one is.

    Raises:
        OSError: from the file system.
    """
    file, descriptor = _create(folder)
    try:
        yield file
    finally:
        with suppress(OSError):
            if is_at(file, descriptor):
                file.unlink()
        os.close(descriptor)


def sweep_partial_files(folder: Path) -> None:
    """Remove what killed processes left in ``folder``.

    What is being written has its lock, and stays; without locks in the file system, everything.
    """
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
        for name in names:
            with suppress(OSError):
                _remove_if_left(folder / name)


def _create(folder: Path) -> tuple[Path, int]:
    """Make and lock a file; returns its descriptor as well."""
    while True:
        file = folder / f".qrun-{os.getpid()}-{next(_COUNT)}.part"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try_lock(descriptor)
        # Between opening and locking, another process may have swept it.
        if is_at(file, descriptor):
            return file, descriptor
        os.close(descriptor)


def _remove_if_left(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if try_lock(descriptor) and is_at(file, descriptor):
            file.unlink()
    finally:
        os.close(descriptor)
