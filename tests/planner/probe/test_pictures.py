"""Generated pictures have what a probe needs of natural ones."""

import numpy as np
import torch

from planner.probe.pictures import dead_leaves, worn_leaves


def test_a_picture_follows_from_its_seed_and_size():
    first = dead_leaves(24, 40, 3)
    assert first.shape == (1, 3, 24, 40)
    assert first.dtype == torch.float32
    assert 0 <= float(first.min()) < 0.3
    assert 0.7 < float(first.max()) <= 1
    assert torch.equal(first, dead_leaves(24, 40, 3))
    assert not torch.equal(first, dead_leaves(24, 40, 4))
    assert dead_leaves(1, 1, 0).shape == (1, 3, 1, 1)


def test_its_spectrum_falls_as_that_of_photos():
    """Power by radius is about f^-2, between the f^-1 of single edges' sums and f^-3 of shading."""
    size = 48
    powers = []
    for seed in range(4):
        gray = dead_leaves(size, size, seed)[0].mean(0).numpy()
        window = np.outer(np.hanning(size), np.hanning(size))
        powers.append(np.abs(np.fft.fft2((gray - gray.mean()) * window)) ** 2)
    power = np.mean(powers, axis=0)
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    radius = np.hypot(fy, fx)
    bands = [(0.03, 0.06), (0.06, 0.12), (0.12, 0.24), (0.24, 0.48)]
    means = [power[(radius >= low) & (radius < high)].mean() for low, high in bands]
    slopes = np.diff(np.log2(means))
    assert -3.5 < slopes.mean() < -1.5
    assert (slopes < 0).all()


def test_worn_leavess_are_worn_by_their_seed():
    for seed in range(3):
        worn, clean = worn_leaves(32, 24, seed), dead_leaves(32, 24, seed)
        assert worn.shape == clean.shape
        assert worn.dtype == torch.float32
        assert 0 <= float(worn.min()) < float(worn.max()) <= 1
        assert torch.equal(worn, worn_leaves(32, 24, seed))
        assert 0 < float((worn - clean).square().mean().sqrt()) < 0.15
    assert worn_leaves(1, 1, 0).shape == (1, 3, 1, 1)


def test_wear_differs_from_picture_to_picture():
    def change(seed):
        worn, clean = worn_leaves(48, 48, seed), dead_leaves(48, 48, seed)
        return float((worn - clean).square().mean().sqrt())

    changes = [change(seed) for seed in range(12)]
    assert max(changes) > 2 * min(changes)
