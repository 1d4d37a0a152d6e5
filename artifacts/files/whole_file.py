"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artifacts.files.partial_file import partial_file, sweep_partial_files
from schemas.errors import ResourceError


@contextmanager
def replacing(path: Path, *, sole_writer: bool = False) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; at the end, what is there takes ``path``'s place.

    By then it is on the disk: after a power cut there is the old file or the new one, and not an
    empty one. After an error nothing is left under that name; what a killed process left goes when
    the next one writes into the folder.

    Args:
        path: the file.
        sole_writer: no other process writes this file. The name then follows from the file's, so
            that what a killed process left is written over by the next.

    Raises:
        OSError: from the file system; ``path`` is as it was.
    """
    if sole_writer:
        partial = path.with_name(f"{path.name}.partial")
        try:
            yield partial
            _move_synced(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return
    sweep_partial_files(path.parent)
    with partial_file(path.parent) as partial:
        yield partial
        _move_synced(partial, path)


def _move_synced(partial: Path, path: Path) -> None:
    descriptor = os.open(partial, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(path)


def write_bytes(path: Path, content: bytes, *, sole_writer: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file.
        content: all of it.
        sole_writer: as `replacing` takes it.

    Raises:
        OSError: from the file system; ``path`` is as it was.
    """
    with replacing(path, sole_writer=sole_writer) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise ResourceError(f"{path}: could not be written ({error.strerror})") from error
