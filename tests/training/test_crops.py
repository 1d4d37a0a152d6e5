"""Random crops."""

import numpy as np
import pytest

from training.crops import Crops, random_crop, to_batch


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((70, 90), (200, 300))]


def test_crops_have_their_size_even_from_small_photos(photos):
    for seed in range(20):
        crop = random_crop(photos[0], 64, np.random.default_rng(seed))
        assert crop.shape == (64, 64, 3)
        assert crop.dtype == np.uint8


def test_batches_depend_on_seed_and_step_alone(photos):
    crops = Crops(photos, seed=3)
    first = crops.batch(2, 64, step=5)
    assert first.shape == (2, 3, 64, 64)
    assert -1 <= first.min() < first.max() <= 1
    crops.batch(1, 64, step=0)
    assert (crops.batch(2, 64, step=5) == first).all()
    assert not (crops.batch(2, 64, step=6) == first).all()
    assert not (Crops(photos, seed=4).batch(2, 64, step=5) == first).all()


def test_a_batch_spans_minus_one_to_one():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 1, 2] = 255
    batch = to_batch([picture])
    assert batch[0, 2, 0, 1] == 1
    assert batch[0, 0, 0, 0] == -1
