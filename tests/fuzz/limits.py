"""Limits of one case: processor time, and memory above what the process had before."""

import ctypes
import gc
import os
import resource
import signal
from pathlib import Path

CPU_S = 2.0
MEMORY_BYTES = 300 * 2**20
GROWN_BYTES = 100 * 2**20
"""Growth after which a worker is replaced: what it holds would hide what a case takes."""
_NOTABLE_BYTES = 2**20
_ADDRESS_SPACE_BYTES = 4 * 2**30
"""How far a worker may grow at all: what asks for more fails in place of the machine."""


def limit_process() -> None:
    """Keep this process from writing core files and from taking the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The default action ends the process even where no Python code runs; its parent sees why.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def start_clock(cpu_s: float = CPU_S) -> None:
    """From now on, so much processor time until SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def stop_clock() -> None:
    """Take that back."""
    signal.setitimer(signal.ITIMER_PROF, 0)


class MemoryMeter:
    """How far the resident size has risen at its peak since `start`."""

    def __init__(self) -> None:
        self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._trim = ctypes.CDLL(None).malloc_trim
        self._first = self._start = self._reset()

    def start(self) -> None:
        """Measure from here on; what was freed is given back first, lest it be used unseen."""
        if _peak() > self._start + _NOTABLE_BYTES:
            gc.collect()
            self._trim(0)
            self._start = self._reset()

    def reading(self) -> int:
        """Bytes above the start at the peak."""
        return max(0, _peak() - self._start)

    @property
    def grown(self) -> int:
        """Bytes at the last start above the first: kept, or in pieces too small to give back."""
        return self._start - self._first

    def _reset(self) -> int:
        """Make the present size the peak, and give it."""
        os.write(self._clear, b"5")
        return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
