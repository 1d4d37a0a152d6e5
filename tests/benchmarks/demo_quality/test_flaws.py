"""What gives an enlarged picture away, on pictures that have it or not."""

import numpy as np
import pytest

from benchmarks.demo_quality.flaws import (
    PATCH_PX,
    colour_drift,
    flat_fields,
    grid_images_db,
    patch_peaks_db,
    ragged_edges_db,
    seam_ratio,
)

SIDE = 192
RNG = np.random.default_rng(0)
TRUTH = np.full((3, SIDE, SIDE), 0.5, np.float32)
NOISE = RNG.normal(0, 0.02, (SIDE, SIDE)).astype(np.float32)


def weave(period):
    wave = np.cos(2 * np.pi * np.arange(SIDE) / period)
    return (wave[:, None] + wave[None, :]).astype(np.float32)


def test_noise_has_no_line_and_a_weave_has_one_at_its_own_period():
    many = [
        patch_peaks_db(TRUTH + RNG.normal(0, 0.02, (SIDE, SIDE)), TRUTH)["peak_8px_db"]
        for _ in range(40)
    ]
    assert abs(np.mean(many)) < 4
    woven = patch_peaks_db(TRUTH + NOISE + 0.005 * weave(PATCH_PX), TRUTH)
    assert woven["peak_8px_db"] > 15
    assert woven["peak_4px_db"] < 15
    assert woven["beside_8px_db"] < 3
    assert patch_peaks_db(TRUTH + NOISE + 0.005 * weave(4), TRUTH)["peak_4px_db"] > 15


def test_a_crest_along_a_frequency_is_beside_the_line_too():
    """Error that grows up to a frequency and falls beyond it, as it does at the input's limit."""
    frequency = np.abs(np.fft.fftfreq(SIDE)) * PATCH_PX
    crest = np.minimum(frequency, 1 / np.maximum(frequency, 1e-3)) ** 4
    found = []
    for seed in range(12):
        noise = np.fft.fft2(np.random.default_rng(seed).normal(0, 0.02, (SIDE, SIDE)))
        shaped = np.fft.ifft2(noise * np.maximum(crest[:, None], crest[None, :])).real
        found.append(patch_peaks_db(TRUTH + shaped, TRUTH))
    on, beside = (np.mean([f[k] for f in found]) for k in ("peak_8px_db", "beside_8px_db"))
    assert beside > 4
    assert abs(on - beside) < 4


def textured(seed, deviation=0.1):
    planes = np.random.default_rng(seed).normal(0.5, deviation, (SIDE, SIDE))
    return np.broadcast_to(planes, (3, SIDE, SIDE)).astype(np.float32)


def test_coarse_structure_repeated_on_the_grid_is_seen_where_lines_are_not():
    """Dots whose sign follows the picture have no place of their own in the crop's spectrum."""
    truth = textured(0)
    assert abs(grid_images_db(textured(1), truth)) < 0.5
    assert grid_images_db(0.5 + 0.3 * (truth - 0.5), truth) == pytest.approx(0, abs=0.01)
    coarse = np.kron(np.sign(textured(2)[0, ::16, ::16] - 0.5), np.ones((16, 16)))
    dots = (np.arange(SIDE) % 2 * 2 - 1) * coarse
    dotted = truth + 0.1 * dots.astype(np.float32)
    assert grid_images_db(dotted, truth) > 3
    assert grid_images_db(dotted.transpose(0, 2, 1), truth.transpose(0, 2, 1)) > 3
    assert max(patch_peaks_db(dotted, truth).values()) < 15


def test_crops_without_texture_have_no_images():
    assert grid_images_db(TRUTH, TRUTH) == 0
    assert grid_images_db(TRUTH + 0.1, TRUTH) == pytest.approx(0, abs=1e-6)


def test_teeth_along_an_edge_are_seen():
    rows, columns = np.arange(SIDE)[:, None], np.arange(SIDE)

    def edge(teeth=0.0, width=1.0):
        place = (columns - SIDE / 2 - 0.4 * (rows - SIDE / 2) - teeth) / width
        return np.broadcast_to(1 / (1 + np.exp(-place)), TRUTH.shape).astype(np.float32)

    assert ragged_edges_db(edge(), edge()) == pytest.approx(0, abs=1e-5)
    assert ragged_edges_db(edge(2 * (rows // 4 % 2)), edge()) > 3
    assert abs(ragged_edges_db(edge(1.0), edge())) < 0.5
    assert ragged_edges_db(edge(width=2), edge()) < 0
    assert ragged_edges_db(TRUTH + NOISE, TRUTH) == 0


def test_a_jump_at_a_border_is_told_from_jumps_between_patches():
    stepped = TRUTH + NOISE
    assert seam_ratio(stepped, TRUTH, [64, 128]) == pytest.approx(1, abs=0.2)
    stepped = stepped.copy()
    stepped[:, 64:128, 64:128] += 0.1
    assert seam_ratio(stepped, TRUTH, [64, 128]) > 1.5


def test_colours_drift_and_brightness_does_not():
    brighter, redder = TRUTH + 0.1, TRUTH.copy()
    redder[0] += 0.1
    assert colour_drift(brighter, TRUTH) < 0.5
    assert colour_drift(redder, TRUTH) > 5


def test_only_flat_fields_count():
    scores = {
        "flat": {"flat_deviation": 1.0, "truth_flat_deviation": 2.0},
        "rough": {"flat_deviation": 4.0, "truth_flat_deviation": 2.0},
        "grass": {"flat_deviation": 1.0, "truth_flat_deviation": 20.0},
    }
    found = flat_fields(scores)
    assert (found.crops, found.deviation, found.truth_deviation, found.rough) == (2, 2.5, 2.0, 0.5)
