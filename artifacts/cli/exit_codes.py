"""How a command of this project ends: exit codes and the one or two lines that go with them.

Both command lines (planner and runtime) run their commands inside `exit_on_error`, so that an
error looks the same everywhere: what is wrong and where, then what to do about it. Nothing heavy is
imported here, because ``--help`` goes through this module too.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import INTERRUPTED_EXIT_CODE, QPackError, ResourceError

UNEXPECTED_EXIT_CODE = 1
"""What a command returns after an error that no typed error describes: a bug, or a torn setup."""

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def exit_on_error(*, debug: bool = False) -> Iterator[None]:
    """Turn an exception inside the block into stderr lines and ``SystemExit``.

    ==============================  ====================================================
    exception                       exit code
    ==============================  ====================================================
    ``QPackError``                  the class's own (2 ... 6); its hint on a second line
    ``MemoryError``, a full disk    5
    ``KeyboardInterrupt``           130; the exception's text, if any, says what was kept
    any other ``Exception``         1, in one line
    ==============================  ====================================================

    Args:
        debug: also print the traceback, before those lines.

    Raises:
        SystemExit: in place of the exception; a ``SystemExit`` from the block passes unchanged.
    """
    # It comes with pyiqa; diffusers imports it, and it then tells what it cannot speed up.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        code, lines = describe_error(error)
        for line in lines:
            print(line, file=sys.stderr)
        raise SystemExit(code) from error


def describe_error(error: BaseException) -> tuple[int, list[str]]:
    """Return the exit code of ``error`` and the lines for stderr (one, or two with a hint)."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED_EXIT_CODE, [f"interrupted: {error}" if str(error) else "interrupted"]
    if isinstance(error, QPackError):
        lines = [f"error: {one_line(error)}"]
        if error.hint:
            lines.append(f"hint: {error.hint}")
        return error.exit_code, lines
    # torch's own class is recognised by its name, because importing torch here would take seconds.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError.exit_code, [f"error: out of memory ({one_line(error)})"]
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return ResourceError.exit_code, [f"error: {one_line(error)}"]
    return UNEXPECTED_EXIT_CODE, [
        f"error: {type(error).__name__}: {one_line(error)} (--debug shows the traceback)"
    ]


def one_line(error: BaseException) -> str:
    """The text of ``error`` with every run of white space made one space, or its type's name."""
    return " ".join(str(error).split()) or type(error).__name__
