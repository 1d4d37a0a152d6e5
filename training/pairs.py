"""Training samples of the network as latents, made ahead in shards and used a few times each.

A sample is a degraded crop, a prompt, and what the prompt asks for. Making it costs a degradation
and two encodings, training on it once several times that; a few uses, each with noise and timestep
of its own, make the preparation cheap. A shard depends on its number alone. Steps draw from the
last ``WINDOW`` shards, so that the crops of a batch are mixed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from runtime.images.resizing import resize as runtime_resize
from training.crops import Crops, to_batch
from training.degradation.resampling import FloatImage, Pixels, to_float, to_pixels
from training.degradation.second_order import Degradation
from training.device import autocast
from training.prompts import PROMPTS, draw_prompt

SHARD_PIXELS = 128 * 64 * 64
SMALLEST_SHARD = 16
WINDOW = 8
ENCODED_AT_ONCE = 16

Pictures = tuple[Pixels, Pixels, list[int]]
"""A shard before encoding: targets and enlarged degraded crops [n, H, W, 3], prompts."""


class Samples(Protocol):
    """Where batches come from."""

    def batch(self, size_px: int, count: int, turn: int) -> "Pairs":
        """``count`` samples of ``size_px`` for the ``turn``-th batch of that size."""


@dataclass(frozen=True)
class Pairs:
    """Samples.

    Attributes:
        target: scaled latents of what is asked for, [n, C, h, w].
        control: scaled latents of the degraded pictures, same shape.
        prompt: indices into ``PROMPTS`` [n].
    """

    target: Tensor
    control: Tensor
    prompt: Tensor

    def pick(self, chosen: int) -> "Pairs":
        """One sample without the batch dimension, in float32."""
        return Pairs(self.target[chosen].float(), self.control[chosen].float(), self.prompt[chosen])


class PairShards:
    """Samples of one crop size.

    Args:
        crops: of training photos.
        vae: the trained autoencoder, on the device where it is to encode.
        crop_px: side of the crops.
        uses: how many times a sample is used on average.
        folder: where finished shards are kept for a resumed run; older ones are removed.
    """

    def __init__(
        self,
        crops: Crops,
        vae: AutoencoderKL,
        crop_px: int,
        *,
        uses: int,
        folder: Path,
    ) -> None:
        self.crops, self.vae, self.crop_px, self.uses = crops, vae, crop_px, uses
        self.folder = folder
        self.shard = max(SMALLEST_SHARD, SHARD_PIXELS // crop_px**2)
        self._window: dict[int, Pairs] = {}

    def batch(self, count: int, turn: int) -> Pairs:
        """``count`` samples for the ``turn``-th batch of this size, by torch's random numbers."""
        newest = WINDOW - 1 + turn * count // (self.shard * self.uses)
        self._advance(newest)
        chosen = torch.randint(WINDOW * self.shard, (count,)).tolist()
        picked = [self._window[newest - i // self.shard].pick(i % self.shard) for i in chosen]
        return Pairs(
            torch.stack([p.target for p in picked]),
            torch.stack([p.control for p in picked]),
            torch.stack([p.prompt for p in picked]),
        )

    def _advance(self, newest: int) -> None:
        """Hold the shards ``newest - WINDOW + 1`` ... ``newest``."""
        wanted = range(newest - WINDOW + 1, newest + 1)
        for index in [i for i in self._window if i not in wanted]:
            del self._window[index]
            self._file(index).unlink(missing_ok=True)
        for index in wanted:
            if index not in self._window:
                self._window[index] = self._load_or_make(index)

    def _file(self, index: int) -> Path:
        return self.folder / f"pairs{self.crop_px}-{index}.pt"

    def _load_or_make(self, index: int) -> Pairs:
        file = self._file(index)
        if file.exists():
            return Pairs(**torch.load(file, weights_only=True))
        pairs = self._encode(*make_pairs(self.crops, self.crop_px, index, self.shard))
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save(vars(pairs), partial)
        partial.replace(file)
        return pairs

    def _encode(self, targets: Pixels, controls: Pixels, prompts: list[int]) -> Pairs:
        target, control = (
            torch.cat([encode(self.vae, part).bfloat16() for part in _parts(pictures)])
            for pictures in (targets, controls)
        )
        return Pairs(target, control, torch.tensor(prompts, device=target.device))


class SizedShards:
    """Shards of several crop sizes.

    Args:
        crops: of training photos.
        vae: the trained autoencoder, on the device where it is to encode.
        sizes: in pixels.
        uses: how many times a sample is used on average.
        folder: where finished shards are kept for a resumed run.
    """

    def __init__(
        self, crops: Crops, vae: AutoencoderKL, sizes: Iterable[int], *, uses: int, folder: Path
    ) -> None:
        self._of_size = {
            size: PairShards(crops, vae, size, uses=uses, folder=folder) for size in set(sizes)
        }

    def batch(self, size_px: int, count: int, turn: int) -> Pairs:
        """``count`` samples of ``size_px`` for the ``turn``-th batch of that size."""
        return self._of_size[size_px].batch(count, turn)


def make_pair(crops: Crops, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels, int]:
    """Target and enlarged degraded crop, uint8 [size, size, 3], and the prompt's index."""
    truth = to_float(crops.draw(size, rng))
    small = Degradation.draw_for_training(rng).apply(truth)
    # What the runtime reads is a file of 8 bits, and this is how it enlarges.
    degraded = enlarge(to_pixels(small), size)
    prompt = draw_prompt(rng)
    return to_pixels(PROMPTS[prompt].target(truth, degraded)), to_pixels(degraded), prompt


def make_pairs(crops: Crops, size: int, index: int, count: int) -> Pictures:
    """Shard ``index``: targets and enlarged degraded crops [count, size, size, 3], prompts."""
    rng = crops.generator(size, index, 1)
    targets, degraded, prompts = zip(
        *(make_pair(crops, size, rng) for _ in range(count)), strict=True
    )
    return np.stack(targets), np.stack(degraded), list(prompts)


def enlarge(small: Pixels, size: int) -> FloatImage:
    """Enlarge [h, w, 3] to [size, size, 3] as the runtime does."""
    image = torch.from_numpy(to_float(small)).permute(2, 0, 1)[None]
    enlarged: FloatImage = runtime_resize(image, (size, size))[0].permute(1, 2, 0).numpy()
    return enlarged


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images [B, 3, H, W], -1 ... 1 -> scaled latents [B, 16, H/4, W/4] (posterior mean)."""
    with autocast(vae.device):
        there = images.to(vae.device, memory_format=torch.channels_last)
        mean = vae.encode(there).latent_dist.mean.float()
    scaled: Tensor = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    return scaled


def _parts(pictures: Pixels) -> Iterator[Tensor]:
    for start in range(0, len(pictures), ENCODED_AT_ONCE):
        yield to_batch(list(pictures[start : start + ENCODED_AT_ONCE]))
