"""What gives an enlarged picture away, on pictures that have it or not."""

import numpy as np
import pytest

from benchmarks.demo_quality.flaws import (
    PATCH_PX,
    colour_drift,
    flat_fields,
    patch_peaks_db,
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
    assert patch_peaks_db(TRUTH + NOISE + 0.005 * weave(4), TRUTH)["peak_4px_db"] > 15


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
