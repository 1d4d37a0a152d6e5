"""The picture of seams: what is alike both ways, and that a difference would be seen."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.seams import AMPLIFIED, Both, both_ways
from runtime import strips
from tests.runtime.tiny_pipeline import make_tiny_pipeline


def test_one_picture_both_ways(monkeypatch):
    monkeypatch.setattr(strips, "STRIP_PX", 32)
    pipeline = make_tiny_pipeline()
    pipeline = replace(pipeline, sampling=replace(pipeline.sampling, min_side_px=1))
    photo = np.random.default_rng(0).random((20, 12, 3), dtype=np.float32)
    both = both_ways(pipeline, photo, steps=1)
    assert both.whole.shape == both.cut.shape == (80, 48, 3)
    assert both.seams == (32, 64)
    facts = both.facts()
    assert facts["result_px"] == [48, 80]
    # The margin is more than the picture, so that strips see all of it.
    assert facts["mean_difference_255ths"] < 0.05
    assert both.picture().size == (3 * 48, 80)


def test_a_seam_is_counted_and_seen():
    whole = np.full((8, 40, 3), 0.5)
    cut = whole.copy()
    cut[4:6] += 0.5 / AMPLIFIED
    both = Both(whole=whole, cut=cut, seams=(4,))
    facts = both.facts()
    assert facts["mean_difference_at_seams_255ths"] == pytest.approx(
        255 * 0.25 / AMPLIFIED, abs=1e-3
    )
    assert facts["mean_difference_255ths"] == pytest.approx(255 * 0.125 / AMPLIFIED, abs=1e-3)
    shown = np.asarray(both.picture())[:, 80:]
    assert shown[5, 20].tolist() == [128, 128, 128]
    assert shown[0, 20].tolist() == [0, 0, 0]
    assert shown[4, 0].tolist() == [255, 255, 255]  # a tick
