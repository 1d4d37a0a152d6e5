"""Samples on a device: what other processes make, the ring of latents, the windows."""

import numpy as np
import pytest
import torch

from training.ahead import made_ahead
from training.crops import Crops
from training.pairs import encode, make_pairs
from training.pool import LatentPool
from training.prompts import PROMPTS


def test_other_processes_make_the_same_in_order():
    def make(number):
        return torch.full((2,), number), number

    here = list(made_ahead(make, range(3, 8), 0))
    there = list(made_ahead(make, range(3, 8), 2))
    assert [n for _, n in there] == [3, 4, 5, 6, 7]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(here, there, strict=True))


def test_windows_come_from_the_latents_of_the_crops(crops, vae):
    pool = LatentPool(crops, vae, workers=0, crop_px=64, chunk=2, capacity=4, enough=2)
    torch.manual_seed(0)
    pairs = pool.batch(32, 3, 0)
    assert pairs.target.shape == pairs.control.shape == (3, 16, 8, 8)
    assert all(0 <= n < len(PROMPTS) for n in pairs.prompt)

    made = [make_pairs(crops, 64, number, 2) for number in range(2)]
    pixels = torch.from_numpy(np.concatenate([targets for targets, _, _ in made]))
    whole = encode(vae, pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)).bfloat16().float()
    windows = whole.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5)
    for target in pairs.target:
        error = (windows - target).abs().amax(dim=(3, 4, 5))
        assert error.min() < 0.02  # of latents around 1, in bfloat16


def test_the_oldest_crops_give_way(crops, vae):
    pool = LatentPool(crops, vae, workers=0, crop_px=64, chunk=2, capacity=4, enough=4)
    pool.batch(64, 1, 0)
    first, oldest = pool._target.clone(), pool._taken_in % 4
    pool._enough = pool._taken_in + 2  # one chunk more, at least
    pool.batch(64, 1, 0)
    changed = (pool._target != first).flatten(1).any(dim=1)
    assert changed[oldest : oldest + 2].all()


def test_what_stops_the_other_processes_stops_training(vae):
    """Instead of waiting for ever."""

    class Broken(Crops):
        def draw(self, size, rng):
            raise OSError("a photo is gone")

    broken = Broken([np.zeros((64, 64, 3), np.uint8)], seed=0)
    pool = LatentPool(broken, vae, workers=0, crop_px=64, chunk=2, capacity=4, enough=2)
    with pytest.raises(OSError, match="a photo is gone"):
        pool.batch(64, 1, 0)
