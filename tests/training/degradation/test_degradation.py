"""Degradation: ranges, determinism, and that each part does what it is for."""

import numpy as np
import pytest

from training.degradation.blur import convolve, gaussian_kernel, sinc_kernel
from training.degradation.resampling import resize, to_float, to_pixels
from training.degradation.second_order import Degradation
from training.degradation.sensor import gaussian_noise, jpeg, poisson_noise


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def photo():
    from skimage.data import chelsea

    return to_float(chelsea()[:128, :160])


@pytest.mark.parametrize("draw", [Degradation.draw_for_training, Degradation.draw_for_evaluation])
def test_a_quarter_of_the_size_and_the_same_every_time(photo, draw):
    for seed in range(12):
        degradation = draw(rng(seed))
        assert degradation == draw(rng(seed))
        small = degradation.apply(photo)
        assert small.shape == (32, 40, 3)
        assert small.dtype == np.float32
        assert 0 <= small.min() < small.max() <= 1
        assert np.array_equal(small, degradation.apply(photo))


def test_strength_decides_how_much_is_lost(photo):
    def mean_error(strength):
        draws = (Degradation.draw(rng(seed), strength).apply(photo) for seed in range(20))
        return np.mean([np.sqrt(np.mean((resize(s, (128, 160)) - photo) ** 2)) for s in draws])

    assert mean_error(0.0) < mean_error(0.4) < mean_error(1.0)


def test_the_empty_degradation_is_bicubic_shrinking(photo):
    assert np.array_equal(Degradation().apply(photo), resize(photo, (32, 40)))


def test_training_has_clean_mild_and_two_round_samples():
    draws = [Degradation.draw_for_training(rng(seed)) for seed in range(300)]
    rounds = [len(draw.rounds) for draw in draws]
    assert 0.05 < rounds.count(0) / 300 < 0.17
    assert rounds.count(1) > 60
    assert rounds.count(2) > 60
    assert any(draw.sinc_cutoff for draw in draws)
    qualities = [draw.final_quality for draw in draws if draw.final_quality]
    assert 40 <= min(qualities) < 75
    assert 90 < max(qualities) <= 95


@pytest.mark.parametrize(
    "kernel", [gaussian_kernel((0.1, 0.1), 0), gaussian_kernel((3, 1.2), 0.7), sinc_kernel(1.2)]
)
def test_kernels_keep_a_flat_picture(kernel):
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1)
    flat = np.full((20, 30, 3), 0.3, np.float32)
    assert np.allclose(convolve(flat, kernel), flat, atol=1e-6)


def test_an_oriented_kernel_blurs_along_its_axis():
    kernel = gaussian_kernel((3, 1), 0.0)
    rows, columns = np.indices(kernel.shape) - kernel.shape[0] // 2
    assert (kernel * columns**2).sum() > 5 * (kernel * rows**2).sum()


def test_a_sinc_kernel_rings():
    edge = np.zeros((32, 32, 3), np.float32)
    edge[:, 16:] = 1
    filtered = convolve(edge, sinc_kernel(np.pi / 2))
    assert filtered.max() > 1.05
    assert filtered.min() < -0.05


def test_noise_has_the_deviation_asked_for():
    gray = np.full((200, 200, 3), 0.5, np.float32)
    noisy = gaussian_noise(gray, 0.05, gray=True, rng=rng())
    assert noisy.std() == pytest.approx(0.05, rel=0.05)
    assert np.array_equal(noisy[..., 0], noisy[..., 2])
    shot = poisson_noise(gray, 0.5 / 0.05**2, gray=False, rng=rng())
    assert shot.std() == pytest.approx(0.05, rel=0.05)
    assert not np.array_equal(shot[..., 0], shot[..., 2])


def test_jpeg_loses_more_at_low_quality(photo):
    errors = [np.abs(jpeg(photo, quality) - photo).mean() for quality in (20, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_pixels_and_floats_convert_both_ways():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_pixels(to_float(pixels)), pixels)
