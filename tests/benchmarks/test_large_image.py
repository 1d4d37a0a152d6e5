"""The memory of large pictures: a small one goes the same ways."""

from dataclasses import replace

import pytest

from benchmarks.large_image import Silent, measure
from runtime import strips
from tests.runtime.tiny_pipeline import make_tiny_pipeline


@pytest.mark.parametrize("whole", [False, True])
def test_both_ways_are_measured(monkeypatch, whole):
    monkeypatch.setattr(strips, "STRIP_FROM_PIXELS", 0)
    pipeline = replace(make_tiny_pipeline(), network=Silent())
    result = measure(pipeline, 24, 20, steps=2, whole=whole)
    assert result["result_px"] == [96, 80]
    assert result["in_strips"] is not whole
    assert result["network"] is False
    assert result["peak_gib"] >= result["loaded_gib"] > 0
