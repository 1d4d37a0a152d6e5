"""How much memory there is, and how much was taken, on the device where a network computes."""

import os
import sys
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = "max"


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken on ``device``; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds of it without need is given out first.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _free_main_memory() if device.type == "cpu" else None


def peak_bytes(device: torch.device) -> int | None:
    """The most memory that this process had at once on ``device``; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or os.name != "posix":
        return None
    import resource  # noqa: PLC0415  (POSIX alone has it)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _free_main_memory() -> int | None:
    """What Linux calls available, or what a container's limit leaves of it."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:  # another system
        return None
    kibibytes = dict(line.split(":", 1) for line in lines)["MemAvailable"]
    available = 1024 * int(kibibytes.split()[0])
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = (_CGROUP / "memory.current").read_text()
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:  # no container, or control groups of the first version
        return available
    if limit == _UNLIMITED:
        return available
    # Pages of files count as used, but go when memory is asked for.
    return min(available, int(limit) - int(used) + int(kept.get("inactive_file", 0)))
