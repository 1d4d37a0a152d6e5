"""How a command of this project ends: an exit code and the one or two lines that go with it.

Both command lines (planner and runtime) run their commands inside `exit_on_error`, so that an
error looks the same everywhere: what is wrong and where, then what to do about it. Nothing heavy is
imported here, because ``--help`` goes through this module too.
"""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from artifacts.cli.interrupts import interruptible, interruption_was_said
from artifacts.cli.output import tell
from schemas.error_text import describe_error


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
    interruptible()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        trace = traceback.format_exc().splitlines() if debug else []
        code, lines = describe_error(error)
        for line in [*trace, *lines]:
            tell(line)
        if isinstance(error, KeyboardInterrupt):
            interruption_was_said()
        raise SystemExit(code) from error
