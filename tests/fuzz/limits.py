"""Limits of one case: processor time, and memory above what the process had before."""

import os
import resource
import signal
from pathlib import Path

CPU_S = 2.0
MEMORY_BYTES = 300 * 2**20
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
    """The largest resident size since the last reading, beyond that of the start."""

    def __init__(self) -> None:
        self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        os.write(self._clear, b"5")
        self._baseline = self._peak()
        self._known = self._baseline

    def reading(self) -> int:
        """Bytes above the baseline at the peak; the next reading starts anew."""
        peak = self._peak()
        if peak != self._known:
            os.write(self._clear, b"5")  # 5: set the peak to the present size
            self._known = self._peak()
        return max(0, peak - self._baseline)

    @staticmethod
    def _peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
