"""What results are judged by."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from training.fsim import fsim, luminance, phase_congruency
from training.metrics import (
    colour_difference,
    flat_patch_deviation,
    measure,
    psnr_db,
    upper_octave_power,
)


@pytest.fixture
def photo():
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:128, 180:308].transpose(2, 0, 1), np.float32) / 255


def blurred(photo, sigma):
    return gaussian_filter(photo, (0, sigma, sigma))


def test_a_perfect_result_is_told_as_one(photo):
    found = measure(photo, photo + np.float32(1e-6))
    assert found["fsim"] == pytest.approx(1, abs=1e-4)
    assert found["ciede2000"] == pytest.approx(0, abs=1e-2)
    assert found["upper_octave"] == pytest.approx(1, abs=1e-3)
    assert found["flat_deviation"] == pytest.approx(found["truth_flat_deviation"], abs=1e-2)


def test_blur_lowers_fidelity_structure_and_detail(photo):
    truth = luminance(photo)
    previous = 1.0
    for sigma in (0.7, 1.5, 3.0):
        found = fsim(luminance(blurred(photo, sigma)), truth)
        assert 0 < found < previous
        previous = found
    assert upper_octave_power(blurred(photo, 1.5)) < 0.01 * upper_octave_power(photo)


def test_phase_congruency_finds_an_edge_whatever_its_contrast():
    edges = []
    for contrast in (20, 200):
        plane = np.full((64, 64), 20.0)
        plane[:, 32:] += contrast
        congruency = phase_congruency(plane)
        assert (congruency >= 0).all()
        assert (congruency <= 1).all()
        assert congruency[:, 31:33].min() > 0.7
        assert congruency[:, 36:41].max() < 0.3
        edges.append(congruency[:, 31:33])
    assert np.allclose(*edges, atol=0.05)


def test_psnr_and_colour_have_their_units(photo):
    assert psnr_db(photo, photo + np.float32(0.1)) == pytest.approx(20, abs=1e-3)
    assert colour_difference(photo, photo * np.float32(0.9)) > 1


def test_only_the_upper_octave_counts():
    x = np.arange(128)
    for period, counted in ((2.5, True), (3.9, True), (4.5, False), (16, False)):
        wave = 0.5 + 0.2 * np.sin(2 * np.pi * x / period)
        power = upper_octave_power(np.broadcast_to(wave, (3, 128, 128)).astype(np.float32))
        assert (power > 1e4) == counted, period


def test_the_flattest_patch_is_found_in_the_truth():
    truth = np.random.default_rng(0).random((3, 96, 96)).astype(np.float32)
    truth[:, 24:60, 24:60] = 0.5
    result = truth + np.float32(0)
    result[:, 24:60, 24:60] += np.float32(0.1) * np.sign(np.sin(np.arange(36)))
    deviation, truth_deviation = flat_patch_deviation(result.astype(np.float32), truth)
    assert truth_deviation == pytest.approx(0, abs=1e-3)
    assert deviation > 10


def test_fsim_is_that_of_another_implementation(photo):
    """0.868544 is what piq 0.8.0 (Apache-2.0) finds for this pair, without colour."""
    assert fsim(luminance(blurred(photo, 1.5)), luminance(photo)) == pytest.approx(
        0.868544, abs=1e-5
    )
