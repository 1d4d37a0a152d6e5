"""Chunks of degraded crops that other processes make, for pools on a GPU."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from training.ahead import made_ahead
from training.crops import Crops
from training.pairs import make_pairs

WAITING = 4
"""Chunks that lie ready."""

Chunk = tuple[Tensor, Tensor, Tensor]
"""Targets and enlarged degraded crops, uint8 [n, H, W, 3]; prompts [n]."""


class Chunks:
    """Chunks in the order of their numbers, made while the device trains.

    Args:
        crops: of training photos.
        crop_px: side of a crop.
        count: crops of a chunk.
        numbers: of the chunks, which they depend on alone.
        workers: processes that degrade; 0 to do it in this one.
    """

    def __init__(
        self, crops: Crops, crop_px: int, count: int, numbers: Sequence[int], workers: int
    ) -> None:
        # The loader can only be waited for, so a thread waits, and training looks into a queue.
        self._ready: queue.Queue[Chunk | Exception] = queue.Queue(WAITING)
        chunks = made_ahead(_Make(crops, crop_px, count), numbers, workers)
        threading.Thread(target=_move, args=(chunks, self._ready), daemon=True).start()

    def wait(self) -> Chunk:
        """The next one; what stopped the other processes is raised."""
        return _unless_stopped(self._ready.get())

    def ready(self) -> Chunk | None:
        """Likewise, or None where it is not there yet."""
        with contextlib.suppress(queue.Empty):
            return _unless_stopped(self._ready.get_nowait())
        return None


class _Make:
    """Makes chunk ``n`` of crops; an object, so that other processes can be given it."""

    def __init__(self, crops: Crops, crop_px: int, count: int) -> None:
        self.crops, self.crop_px, self.count = crops, crop_px, count

    def __call__(self, number: int) -> Chunk:
        targets, controls, prompts = make_pairs(self.crops, self.crop_px, number, self.count)
        return torch.from_numpy(targets), torch.from_numpy(controls), torch.tensor(prompts)


def _move(chunks: Iterator[Chunk], ready: "queue.Queue[Chunk | Exception]") -> None:
    try:
        for chunk in chunks:
            ready.put(chunk)
    except Exception as error:  # whoever waits for a chunk would wait for ever
        ready.put(error)


def _unless_stopped(chunk: Chunk | Exception) -> Chunk:
    if isinstance(chunk, Exception):
        raise chunk
    return chunk
