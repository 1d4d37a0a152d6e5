"""The system's own locks on files: they end with the process that holds them."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows, where nothing stands in for it)
    fcntl = None  # type: ignore[assignment]


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file for this descriptor alone, without waiting.

    Returns:
        Whether it is locked now (False: another descriptor has it), or None where the system or
        the file system knows no locks.
    """
    if fcntl is None:  # pragma: no cover
        return None  # type: ignore[unreachable]
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_at(file: Path, descriptor: int) -> bool:
    """Whether ``file`` is still what ``descriptor`` was opened at."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
