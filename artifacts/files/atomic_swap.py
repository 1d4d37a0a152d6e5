"""Put a finished directory in place of another, so that readers see the old one or the new one."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sync_directory(path: Path) -> None:
    """Make a directory's own entries durable (its files are synced one by one)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(new: Path, destination: Path) -> None:
    """Rename the directory ``new`` to its sibling ``destination``, replacing what is there.

    Where the system can exchange two names in one step (Linux), an existing ``destination`` is
    never absent. Elsewhere it is, between two renames; if the second fails, the first is undone.

    Raises:
        OSError: from the file system; ``destination`` is as it was.
    """
    if not destination.exists():
        new.rename(destination)
        sync_directory(destination.parent)
        return
    old = new
    if not _exchange(new, destination):
        # A name of its own kind: should the process die now, this is the only pack there is, and
        # whoever clears away unfinished ones must not take it along.
        old = new.with_name(new.name.replace(".partial-", ".replaced-") + "-old")
        destination.rename(old)
        try:
            new.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
    sync_directory(destination.parent)
    # The new pack stands: that the old one cannot be removed must not make the build fail.
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    status: int = renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return status == 0
