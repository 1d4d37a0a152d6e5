"""The demo's picture of before and after."""

import sys

import numpy as np
from PIL import Image

from benchmarks import before_after


def test_the_enlarged_input_is_left_of_the_result(tmp_path, monkeypatch):
    small, large, out = (tmp_path / name for name in ("small.png", "large.png", "both.png"))
    Image.new("RGB", (6, 4), (10, 20, 30)).save(small)
    Image.new("RGB", (24, 16), (200, 100, 50)).save(large)
    monkeypatch.setattr(sys, "argv", ["before_after", str(small), str(large), "-o", str(out)])
    before_after.main()
    both = np.asarray(Image.open(out))
    assert both.shape == (16, 48, 3)
    assert (both[:, :24] == (10, 20, 30)).all()
    assert (both[:, 24:] == (200, 100, 50)).all()
