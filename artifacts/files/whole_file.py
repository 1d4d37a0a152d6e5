"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import ResourceError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; at the end, what is there takes ``path``'s place.

    After an error nothing is left under that name. It keeps two processes apart, and is short
    however long the real one is.

    Raises:
        OSError: from the file system; ``path`` is as it was.
    """
    partial = path.with_name(f".qrun-{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: could not be written ({error.strerror})") from error
