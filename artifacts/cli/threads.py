"""How many threads libraries begin with, and how long those wait for one another awake.

Both are read from the environment when torch is loaded, so a command decides before. What its user
has set there stays.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

SPINS = "2000"
"""Turns of a waiting loop, some 20 microseconds, after which a thread of GNU's OpenMP sleeps.

Its own 300,000 turns are milliseconds. Where other programs run, the thread that is waited for has
no core meanwhile, and those that wait take them from it: a build of the demo beside one busy
program took half as long again. On an idle machine the two do not differ
(``benchmarks/waiting_threads.py``).
"""
_CGROUPS = Path("/sys/fs/cgroup")


def prepare_threads(
    environment: MutableMapping[str, str] = os.environ, cgroups: Path = _CGROUPS
) -> None:
    """Set what torch's threads go by; for a command's first lines, before torch is imported.

    Args:
        environment: where to set it.
        cgroups: what the kernel says of the limits of this process's group.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = SPINS
    processors = granted_processors(cgroups)
    if processors is not None and "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(processors)


def granted_processors(cgroups: Path = _CGROUPS) -> int | None:
    """Processors that a container may use the time of; None where it may use all it sees.

    ``docker run --cpus 2`` shows all cores of the machine and stops the container for the rest of
    each period when two cores' time is spent, so more threads only wait longer. Parts of a core
    count as one.

    Args:
        cgroups: where control groups are mounted, of either version.
    """
    quota, period = _quota(cgroups)
    if quota <= 0 or period <= 0:
        return None
    granted = -(-quota // period)
    return granted if granted < _seen_processors() else None


def _quota(cgroups: Path) -> tuple[int, int]:
    """Microseconds of processor time per period, and the period; zeros without a limit."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return 0, 0
    try:
        return int(quota), int(period)
    except ValueError:  # "max"
        return 0, 0


def _seen_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
