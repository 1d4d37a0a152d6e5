"""The photos that results are measured on, and their degradation."""

import numpy as np
import pytest

from benchmarks.degradation import Degradation, resize
from benchmarks.photos import HELD_OUT, held_out_photos, training_photos


def rng(seed=0):
    return np.random.default_rng(seed)


def test_no_held_out_photo_is_trained_on():
    held_out = held_out_photos()
    assert set(held_out) == set(HELD_OUT)
    for photo in training_photos(rng()):
        for name, other in held_out.items():
            # Shapes differ or pixels do; a tinted or mirrored copy would keep the shape.
            assert photo.shape != other.shape or abs(photo - other).mean() > 0.05, name


@pytest.mark.parametrize("seed", range(5))
def test_degradation_shrinks_by_four_and_loses_detail(seed):
    photo = held_out_photos()["chelsea"][:128, :160]
    degradation = Degradation.draw(rng(seed))
    small = degradation.apply(photo)
    assert small.shape == (32, 40, 3)
    assert 0 <= small.min() < small.max() <= 1
    assert np.array_equal(small, degradation.apply(photo))
    error = np.sqrt(np.mean((resize(small, 128, 160) - photo) ** 2))
    assert 0.01 < error < 0.2
