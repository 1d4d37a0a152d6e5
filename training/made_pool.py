"""Samples that a trained network makes on a GPU, while another one trains on them.

Other processes degrade crops, the network makes samples of them, and these fill a pool in the
device's memory, the oldest giving way. Unlike the shards of `training.shards` the pool depends on
how fast everything runs, so two runs differ.
"""

from typing import Generic, TypeVar

import torch
from diffusers import AutoencoderKL

from training.chunks import Chunk, Chunks
from training.crops import Crops
from training.sampled import TrainedNetwork
from training.shards import Made

CROP_PX = 192
CHUNK = 16
"""Crops of which samples are made at once."""
CAPACITY = 8192
ENOUGH = 512
"""Samples before training starts."""
NUMBERS = 100_000_000
EVERY = 4
"""Of so many requests one makes new samples, so that a sample is used a few times."""

M = TypeVar("M", bound=Made)


class MadePool(Generic[M]):
    """The newest samples, on the device of ``vae``.

    Args:
        made: what they hold; prompts, of one dimension as all that is no picture, stay with the
            processor, where `ClosingBatches` looks through them.
        crops: of training photos.
        vae: the autoencoder.
        network: what makes the samples.
        workers: processes that degrade; 0 to do it in this one.
        crop_px: side of the crops.
        chunk: crops of which samples are made at once.
        capacity: of the pool; a multiple of ``chunk``.
        enough: samples before the first are given.
        every: requests for one that makes new samples.
    """

    def __init__(
        self,
        made: type[M],
        crops: Crops,
        vae: AutoencoderKL,
        network: TrainedNetwork,
        *,
        workers: int,
        crop_px: int = CROP_PX,
        chunk: int = CHUNK,
        capacity: int = CAPACITY,
        enough: int = ENOUGH,
        every: int = EVERY,
    ) -> None:
        self._made, self._vae, self._network = made, vae, network
        self._capacity, self._enough, self._every = capacity, enough, every
        numbers = range(made.first_crops, made.first_crops + NUMBERS)
        self._chunks = Chunks(crops, crop_px, chunk, numbers, workers)
        self._pool: M | None = None
        self._taken_in = self._requests = 0

    def newer(self) -> M | None:
        """All samples of the pool, in its own memory; None where they are what they were."""
        if self._requests == 0:
            while self._taken_in < self._enough:
                self._take_in(self._chunks.wait())
        else:
            chunk = None if self._requests % self._every else self._chunks.ready()
            if chunk is None:
                self._requests += 1
                return None
            self._take_in(chunk)
        self._requests += 1
        held = slice(min(self._taken_in, self._capacity))
        return self._made(**{name: tensor[held] for name, tensor in vars(self._pool).items()})

    def _take_in(self, chunk: Chunk) -> None:
        """Make samples of ``chunk`` in the place of the oldest ones."""
        made = vars(self._made.make(self._vae, self._network, *chunk))
        if self._pool is None:
            self._pool = self._made(
                **{
                    name: torch.empty(
                        (self._capacity, *tensor.shape[1:]),
                        dtype=tensor.dtype,
                        device=self._vae.device if tensor.ndim > 1 else "cpu",
                    )
                    for name, tensor in made.items()
                }
            )
        start = self._taken_in % self._capacity
        count = len(chunk[0])
        for name, tensor in vars(self._pool).items():
            tensor[start : start + count].copy_(made[name], non_blocking=True)
        self._taken_in += count
