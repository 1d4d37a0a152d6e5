"""The curve of fidelity: what is sampled, and what is shown of it."""

import pytest
import torch

from benchmarks import fidelity_curve
from benchmarks.fidelity_curve import main
from training.evaluation_set import Case

CASES = [Case(f"crop-{i}", torch.rand(1, 3, 64, 64), torch.rand(1, 3, 16, 16)) for i in range(3)]


@pytest.fixture
def sampled(monkeypatch):
    """Fidelities that were sampled; nothing is."""
    found = []

    def sample(_pipeline, _cases, fidelity):
        found.append(fidelity)
        return {"psnr_db": 25.0, "fsim": 0.7, "ciede2000": 5.0, "upper_octave": 0.1}

    monkeypatch.setattr(fidelity_curve, "sample", sample)
    monkeypatch.setattr(fidelity_curve, "evaluation_set", lambda *_: CASES)
    return found


def test_every_fidelity_is_sampled_once(sampled, tmp_path, capsys):
    words = ["--fidelity", "0,1", "--work", str(tmp_path)]
    assert main(words) == main(words) == 0
    assert sampled == [0.0, 1.0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "| 0 | 1.00 | 8 | 25.00 | 0.700 | 5.00 | 0.10 |"
    assert lines[-1] == "| 1 | 0.80 | 5 | 25.00 | 0.700 | 5.00 | 0.10 |"
