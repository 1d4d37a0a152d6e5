"""Ctrl-C ends a command with exit code 130 and one line, within two seconds, whatever it does.

Python raises `KeyboardInterrupt` between two instructions of the main thread. Three times that is
not enough: while modules are still being imported there is nobody to catch it, a library may
swallow it, and a long operation of a library (a decomposition, a large read) makes it wait. So

- until a command has begun, there is nothing to clean up, and the handler ends the process;
- afterwards Python's own handler works, and a thread, woken by the signal itself, ends the process
  when that has not done so in time, or at a second Ctrl-C. What is half-written then is swept by
  the next command, as after a kill.

Only the standard library is imported here: a command's first lines import this module.
"""

import contextlib
import os
import signal
import socket
import threading
from types import FrameType

EXIT_CODE = 130
PATIENCE_SECONDS = 1.7
"""For cleaning up; what waits for a library's operation longer than this is ended."""
_STDERR = 2
_SAID = threading.Event()


def leave_at_once_on_interrupt() -> None:
    """Have Ctrl-C end the process; for the time before a command begins."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave)


def interruptible() -> None:
    """Have Ctrl-C raise `KeyboardInterrupt` from here on, and be waited for no longer than said.

    Does nothing unless `leave_at_once_on_interrupt` was called: a program that calls commands as
    functions keeps its own handling.
    """
    if signal.getsignal(signal.SIGINT) is not _leave:
        return
    ours, signals = socket.socketpair()
    signals.setblocking(False)
    signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, args=(ours, signals), daemon=True).start()


def interruption_was_said() -> None:
    """Say that the command has told its user of the interruption; nothing more is printed then."""
    _SAID.set()


def tell_of_interruption(stop: SystemExit) -> None:
    """Print the line for an interruption that came outside a command, where nobody told of it."""
    if stop.code == EXIT_CODE and not _SAID.is_set():
        _SAID.set()
        with contextlib.suppress(OSError):
            os.write(_STDERR, b"interrupted\n")


def _leave(_number: int = 0, _frame: FrameType | None = None) -> None:
    if not _SAID.is_set():
        with contextlib.suppress(OSError):  # nobody may be listening any more
            # Not print: the handler may run in the middle of one.
            os.write(_STDERR, b"interrupted\n")
    os._exit(EXIT_CODE)


def _watch(wakes: socket.socket, _kept_open: socket.socket) -> None:
    """Wait for the signal, then for the process to end; end it where it does not."""
    while signal.SIGINT not in wakes.recv(64):
        pass
    wakes.settimeout(PATIENCE_SECONDS)
    try:
        while signal.SIGINT not in wakes.recv(64):
            pass
    except TimeoutError:
        pass
    _leave()
