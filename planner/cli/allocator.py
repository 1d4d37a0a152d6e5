"""How the C library's allocator should treat memory that a build gives back."""

import contextlib
import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_KEPT = 2**30


def keep_freed_memory() -> None:
    """Let the process keep freed memory for its next layer instead of returning it to the system.

    glibc asks the system for every block above 32 MiB, which zeroes it page by page, and gives it
    back when it is freed. Layers of a size follow one another, so that is mostly for nothing.
    What is kept is used again where it fits, which for aligned blocks is not always. Elsewhere than
    on glibc nothing happens. Not for a library to decide: it holds for the whole process.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, LARGEST_KEPT)
        mallopt(M_ARENA_MAX, 1)  # arenas of other threads hold no large blocks
