"""Training pictures and their degradation."""

import numpy as np
import pytest

from training.degradation import Degradation, random_crop, resize
from training.loop import Crops
from training.photos import HELD_OUT, dead_leaves, held_out_photos, training_photos


def rng(seed=0):
    return np.random.default_rng(seed)


def test_no_held_out_photo_is_trained_on():
    held_out = held_out_photos()
    assert set(held_out) == set(HELD_OUT)
    for photo in training_photos(rng()):
        for name, other in held_out.items():
            # Shapes differ or pixels do; a tinted or mirrored copy would keep the shape.
            assert photo.shape != other.shape or abs(photo - other).mean() > 0.05, name


def test_dead_leaves_are_pictures_and_depend_on_the_seed_alone():
    palette = held_out_photos()["coffee"]
    first = dead_leaves(64, palette, rng(1), leaves=40)
    assert first.shape == (64, 64, 3)
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(first, dead_leaves(64, palette, rng(1), leaves=40))
    assert not np.array_equal(first, dead_leaves(64, palette, rng(2), leaves=40))


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


def test_crops_have_their_size_even_from_small_pictures():
    picture = held_out_photos()["coffee"][:70, :90]
    for seed in range(10):
        assert random_crop(picture, 64, rng(seed)).shape == (64, 64, 3)


def test_batches_depend_on_the_step_alone():
    crops = Crops(seed=3, leaves=2)
    sharp, degraded = crops.pairs(2, 64, step=5)
    assert sharp.shape == degraded.shape == (2, 3, 64, 64)
    crops.images(1, 64, step=0)
    again, _ = crops.pairs(2, 64, step=5)
    assert (sharp == again).all()
    assert not (sharp == crops.pairs(2, 64, step=6)[0]).all()
