"""The measure behind the default colour correction."""

import numpy as np
import pytest

from benchmarks.color_fix import COLOR_FIXES, INPUTS, METRICS, averaged, color_difference, render
from benchmarks.color_fix import results as corrected
from tests.runtime.tiny_pipeline import make_tiny_pipeline


def test_the_difference_is_that_of_the_standard():
    """Equal colours have none; a hundredth of white beside middle gray is about one."""
    red = np.full((2, 2, 3), (0.8, 0.2, 0.2), np.float32)
    assert color_difference(red, red) == 0
    gray = np.full((2, 2, 3), 0.5, np.float32)
    lighter = np.full((2, 2, 3), 0.51, np.float32)
    assert color_difference(gray, lighter) == pytest.approx(0.97, abs=0.05)


def test_blocks_are_averaged():
    image = np.zeros((8, 4, 3), np.float32)
    image[:4, :2] = 1
    assert averaged(image)[:, 0].tolist() == [[0.5] * 3, [0] * 3]


def test_corrections_share_one_latent():
    small = np.random.default_rng(0).random((10, 12, 3), np.float32)
    found = corrected(make_tiny_pipeline(), small)
    assert set(found) == set(COLOR_FIXES)
    assert {picture.shape for picture in found.values()} == {(40, 48, 3)}
    again = corrected(make_tiny_pipeline(), small)
    assert np.array_equal(found["none"], again["none"])
    assert not np.array_equal(found["none"], found["wavelet"])


def test_the_page_names_the_command_and_every_row():
    fixes = {fix: {metric: float(n) for metric in METRICS} for n, fix in enumerate(COLOR_FIXES)}
    rows = [{"photo": name, **dict.fromkeys(INPUTS, fixes)} for name in "ab"]
    page = render(rows, "mini")
    assert "python -m benchmarks.color_fix --out docs/results" in page
    for kind in INPUTS:
        for fix in COLOR_FIXES:
            assert f"| {kind} | `{fix}` |" in page
    assert "-1.00 [-1.00, -1.00]" in page
