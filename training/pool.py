"""Training samples on a GPU, which trains faster than pictures can be degraded for it.

Other processes keep degrading large crops; their latents fill a pool in the device's memory, the
oldest giving way. A batch takes windows out of random crops of the pool. Unlike the shards of
``training.pairs`` the pool depends on how fast everything runs, so two runs differ.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.ahead import made_ahead
from training.crops import Crops
from training.pairs import Pairs, encode, make_pairs

CROP_PX = 192
CHUNK = 32
"""Crops that are made and encoded at once."""
CAPACITY = 131_072
"""Crops in the pool: 19 GB of latents."""
ENOUGH = 1024
"""Crops before training starts."""
NUMBERS = range(1_000_000_000)

Chunk = tuple[Tensor, Tensor, Tensor]
"""Targets and enlarged degraded crops, uint8 [n, H, W, 3]; prompts [n]."""


class _Chunks:
    """Makes chunk ``n`` of crops; an object, so that other processes can be given it."""

    def __init__(self, crops: Crops, crop_px: int, count: int) -> None:
        self.crops, self.crop_px, self.count = crops, crop_px, count

    def __call__(self, number: int) -> Chunk:
        targets, controls, prompts = make_pairs(self.crops, self.crop_px, number, self.count)
        return torch.from_numpy(targets), torch.from_numpy(controls), torch.tensor(prompts)


class LatentPool:
    """Samples on the device of ``vae``.

    Args:
        crops: of training photos.
        vae: the trained autoencoder.
        workers: processes that degrade; 0 to do it in this one.
        crop_px: side of the crops in the pool; batches have windows of at most this.
        chunk: crops that are made and encoded at once.
        capacity: crops in the pool; a multiple of ``chunk``.
        enough: crops before the first batch is given.
    """

    def __init__(
        self,
        crops: Crops,
        vae: AutoencoderKL,
        *,
        workers: int,
        crop_px: int = CROP_PX,
        chunk: int = CHUNK,
        capacity: int = CAPACITY,
        enough: int = ENOUGH,
    ) -> None:
        self._vae, self._chunk, self._capacity, self._enough = vae, chunk, capacity, enough
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        side, channels = crop_px // scale, vae.config.latent_channels
        self._scale = scale
        size = (capacity, channels, side, side)
        self._target, self._control = (
            torch.empty(size, dtype=torch.bfloat16, device=vae.device) for _ in range(2)
        )
        self._prompt = torch.empty(capacity, dtype=torch.long, device=vae.device)
        self._taken_in = 0
        # The loader can only be waited for, so a thread waits, and training looks into a queue.
        self._ready: queue.Queue[Chunk | Exception] = queue.Queue(4)
        self._chunks = made_ahead(_Chunks(crops, crop_px, chunk), NUMBERS, workers)
        threading.Thread(target=_move, args=(self._chunks, self._ready), daemon=True).start()

    def batch(self, size_px: int, count: int, turn: int) -> Pairs:
        """``count`` samples, windows of ``size_px``; the ``turn`` does not matter here."""
        while self._taken_in < self._enough:
            self._take_in(self._ready.get())
        with contextlib.suppress(queue.Empty):
            self._take_in(self._ready.get_nowait())
        device = self._prompt.device
        held = min(self._taken_in, self._capacity)
        chosen = torch.randint(held, (count,), device=device)
        side, window = self._target.shape[-1], size_px // self._scale
        corner = torch.randint(side - window + 1, (2, count, 1, 1, 1), device=device)
        along = torch.arange(window, device=device)
        where = (
            chosen[:, None, None, None],
            torch.arange(self._target.shape[1], device=device)[:, None, None],
            corner[0] + along[:, None],
            corner[1] + along,
        )
        return Pairs(
            self._target[where].float(), self._control[where].float(), self._prompt[chosen]
        )

    def _take_in(self, chunk: Chunk | Exception) -> None:
        """Encode ``chunk`` into the place of the oldest one; what stopped the thread is raised."""
        if isinstance(chunk, Exception):
            raise chunk
        targets, controls, prompts = chunk
        start = self._taken_in % self._capacity
        place = slice(start, start + self._chunk)
        self._target[place] = encode(self._vae, self._values(targets)).bfloat16()
        self._control[place] = encode(self._vae, self._values(controls)).bfloat16()
        self._prompt[place] = prompts.to(self._prompt.device, non_blocking=True)
        self._taken_in += self._chunk

    def _values(self, pixels: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> [n, 3, H, W] on the device, -1 ... 1."""
        there = pixels.to(self._vae.device, non_blocking=True)
        return there.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _move(chunks: Iterator[Chunk], ready: "queue.Queue[Chunk | Exception]") -> None:
    try:
        for chunk in chunks:
            ready.put(chunk)
    except Exception as error:  # whoever waits for a chunk would wait for ever
        ready.put(error)
