"""Training samples on a GPU, which trains faster than pictures can be degraded for it.

Other processes keep degrading large crops; their latents fill a pool in the device's memory, the
oldest giving way. A batch takes windows out of random crops of the pool. Unlike the shards of
``training.pairs`` the pool depends on how fast everything runs, so two runs differ.
"""

import torch
from diffusers import AutoencoderKL

from training.chunks import Chunk, Chunks
from training.crops import Crops, to_values
from training.pairs import Pairs, encode

CROP_PX = 192
CHUNK = 32
"""Crops that are made and encoded at once."""
CAPACITY = 131_072
"""Crops in the pool: 19 GB of latents."""
ENOUGH = 1024
"""Crops before training starts."""
NUMBERS = range(1_000_000_000)


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
        self._chunks = Chunks(crops, crop_px, chunk, NUMBERS, workers)

    def batch(self, size_px: int, count: int, turn: int) -> Pairs:
        """``count`` samples, windows of ``size_px``; the ``turn`` does not matter here."""
        while self._taken_in < self._enough:
            self._take_in(self._chunks.wait())
        if (chunk := self._chunks.ready()) is not None:
            self._take_in(chunk)
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

    def _take_in(self, chunk: Chunk) -> None:
        """Encode ``chunk`` into the place of the oldest one."""
        targets, controls, prompts = chunk
        start = self._taken_in % self._capacity
        place = slice(start, start + self._chunk)
        device = self._prompt.device
        self._target[place] = encode(self._vae, to_values(targets, device)).bfloat16()
        self._control[place] = encode(self._vae, to_values(controls, device)).bfloat16()
        self._prompt[place] = prompts.to(device, non_blocking=True)
        self._taken_in += self._chunk
