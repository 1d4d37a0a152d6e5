"""One writer at a time for one output: a lock that ends with the process that holds it.

    with output_lock(path):
        ...                     # whoever else asks for `path` meanwhile is refused at once

The lock is the system's own, on a hidden file beside the output. A process that is killed leaves
the file, but not the lock, so nothing has to be cleared away by hand.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from artifacts.files.file_lock import is_at, try_lock
from schemas.errors import ResourceError, UsageError


def hidden_beside(output: Path, kind: str) -> Path:
    """Where ``.output.kind`` lies, beside ``output``.

    Raises:
        UsageError: nothing can lie beside it: it is the root of the file system.
    """
    name = output.absolute().name
    if not name:
        raise UsageError(f"{output} is no place for an output", hint="name a file or folder in it")
    return output.absolute().with_name(f".{name}.{kind}")


def lock_file(output: Path) -> Path:
    """The file that the lock of ``output`` is on.

    Raises:
        UsageError: as `hidden_beside`.
    """
    return hidden_beside(output, "lock")


@contextlib.contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Have ``output`` for this process alone while the block runs.

    Where the system or the file system knows no locks, the block runs without.

    Raises:
        ResourceError: on entering: another process has it, or the directory cannot be written.
        UsageError: as `hidden_beside`.
    """
    file = lock_file(output)
    try:
        descriptor = _take(file, output)
    except OSError as cause:
        raise ResourceError(f"{file}: cannot be written: {cause.strerror or cause}") from cause
    try:
        yield
    finally:
        # Removed before it is let go: afterwards it might be another's.
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _take(file: Path, output: Path) -> int:
    """Open and lock ``file``; returns its descriptor."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        locked = try_lock(descriptor)
        if locked is None:
            return descriptor
        if not locked:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            process = f"process {holder}" if holder else "another process"
            raise ResourceError(
                f"{output}: {process} is writing it (lock {file})",
                hint="wait until it has finished, or choose another output",
            )
        # Between opening and locking, the one before may have removed the file.
        if is_at(file, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
            return descriptor
        os.close(descriptor)
