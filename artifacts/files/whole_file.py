"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import ResourceError


@contextmanager
def replacing(path: Path, *, sole_writer: bool = False) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; at the end, what is there takes ``path``'s place.

    After an error nothing is left under that name. It keeps two processes apart, and is short
    however long the real one is.

    Args:
        path: the file.
        sole_writer: no other process writes this file. The name then follows from the file's, so
            that what a killed process left is written over by the next.

    Raises:
        OSError: from the file system; ``path`` is as it was.
    """
    partial = path.with_name(f"{path.name}.partial" if sole_writer else f".qrun-{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(
    path: Path, content: bytes, *, sync: bool = False, sole_writer: bool = False
) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file.
        content: all of it.
        sync: have it on the disk before it takes its place.
        sole_writer: as `replacing` takes it.

    Raises:
        OSError: from the file system; ``path`` is as it was.
    """
    with replacing(path, sole_writer=sole_writer) as partial, partial.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise ResourceError(f"{path}: could not be written ({error.strerror})") from error
