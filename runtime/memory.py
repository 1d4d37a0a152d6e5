"""Tiles that fit into memory: chosen beforehand where it can be told, smaller where it runs out.

Memory that runs out is answered first by giving up CUDA graphs, then with smaller tiles. And
memory that nothing uses any more goes back to the system, where the C library would keep it.
"""

import contextlib
import ctypes
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from schemas.errors import ResourceError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


SHARE = 0.8
"""Of free memory that work is planned for: what it takes is estimated, and others take some too."""


def tile_for_memory(
    tile: int, floor: int, unit: int, bytes_per_pixel: float, free: int | None, what: str
) -> int:
    """The side of tiles to start with: ``tile``, halved until the work fits into ``free`` memory.

    Args:
        tile: side that is wanted.
        floor: side that is not gone below.
        unit: sides stay multiples of this.
        bytes_per_pixel: what the work takes of a tile's area.
        free: bytes; None where nothing tells.
        what: names the work in the log.
    """
    chosen = tile
    while free is not None and bytes_per_pixel * chosen**2 > SHARE * free and chosen > floor:
        chosen = max(floor, chosen // 2)
        chosen -= chosen % unit
    if chosen < tile:
        logger.info("%s: tiles of %d, for %.1f GiB are free", what, chosen, (free or 0) / 2**30)
    return chosen


def with_smaller_tiles(
    run: Callable[[int], Result],
    tile: int,
    floor: int,
    unit: int,
    what: str,
    make_room: Callable[[], bool] = lambda: False,
) -> Result:
    """Return ``run(tile)``, halving the tile whenever memory runs out.

    Args:
        run: the work, given the side of a tile.
        tile: side to start from.
        floor: side that is not gone below.
        unit: sides stay multiples of this.
        what: names the work in the log.
        make_room: gives back memory that the work can do without and says whether there was any;
            where there was, the same tile is tried once more.

    Raises:
        ResourceError: memory ran out with tiles of ``floor``.
    """
    while True:
        try:
            return run(tile)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = tile
            if not make_room():
                smaller = max(floor, tile // 2)
                smaller -= smaller % unit
                if not 0 < smaller < tile:
                    raise ResourceError(
                        f"{what}: out of memory, even with tiles of {tile}",
                        hint="close other programs, use a smaller image, or --device cpu",
                    ) from error
        # Only here is the failed attempt's traceback gone, and with it the tensors it held.
        next_try = f"trying {smaller}" if smaller < tile else "trying without CUDA graphs"
        logger.warning("%s: out of memory with tiles of %d; %s", what, tile, next_try)
        tile = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator and cuBLAS have no exception of their own.
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        phrase in said
        for phrase in ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def return_freed_memory() -> None:
    """Give back what the C library keeps of freed memory.

    Blocks of up to 32 MiB come from one heap, and glibc returns no more than that heap's end. A
    network that is loaded layer by layer leaves gaps as large as itself between what it keeps; no
    later block need fit into them. Elsewhere than on glibc nothing happens.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
