"""The curve of detail against fidelity: which settings are sampled, and what is shown of them."""

import json

import pytest
import torch

from benchmarks import detail_curve
from benchmarks.detail_curve import Setting, main
from training.evaluation_set import Case, spread

CASES = [Case(f"crop-{i}", torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16)) for i in range(3)]


@pytest.fixture
def sampled(monkeypatch):
    """Settings that were sampled; nothing is."""
    found = []

    def sample(_pipeline, _cases, setting):
        found.append(setting)
        share = 0.1 * setting.guidance
        return {"psnr_db": 23.0, "fsim": 0.7, "ciede2000": 5.0, "upper_octave": share}

    monkeypatch.setattr(detail_curve, "sample", sample)
    monkeypatch.setattr(detail_curve, "evaluation_set", lambda *_: CASES)
    return found


def test_settings_are_sampled_once_and_shown_in_order(sampled, tmp_path, capsys):
    pytest.importorskip("altair")
    words = ["--prompts", "natural,sharp", "--steps", "8", "--guidance", "1,1.5"]
    words += ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    assert main([*words, "--report"]) == 0
    assert not sampled
    assert main(words) == main(words) == 0
    assert sampled == [Setting(p, 8, g) for p in ("natural", "sharp") for g in (1.0, 1.5)]
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert lines[0].startswith("| bicubic | | |")
    assert lines[2] == "| natural | 8 | 1.5 | 23.00 | 0.700 | 5.00 | 0.15 |"
    points = json.loads((tmp_path / "detail_curve.json").read_text())["points"]
    assert points[4]["setting"] == {"prompt": "sharp", "steps": 8, "guidance": 1.5}
    assert (tmp_path / detail_curve.PLOT).stat().st_size > 1000


def test_crops_are_spread_over_all():
    assert [case.name for case in spread(CASES * 2, 2)] == ["crop-0", "crop-0"]
    assert len(spread(CASES, 10)) == 3
