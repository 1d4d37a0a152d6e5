"""`benchmarks.tile_overlap` on a tiny pipeline and a crop of two tiles a side."""

import torch
from skimage.data import astronaut

from benchmarks import tile_overlap
from tests.runtime.tiny_pipeline import make_tiny_pipeline
from training.evaluation_set import Case

SIDE = 112


def test_every_overlap_is_measured(monkeypatch, tmp_path, capsys):
    truth = torch.from_numpy(astronaut()[:SIDE, :SIDE] / 255.0).float().permute(2, 0, 1)[None]
    case = Case("astronaut", truth, truth[..., ::4, ::4].contiguous())
    monkeypatch.setattr(tile_overlap, "load_pipeline", lambda **_: make_tiny_pipeline())
    monkeypatch.setattr(tile_overlap, "evaluation_set", lambda *_a, **_k: [case])
    monkeypatch.chdir(tmp_path)
    with torch.inference_mode():
        options = ["--pack", "x", "--side", str(SIDE), "--overlaps", "8,4", "--crops", "1"]
        tile_overlap.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["overlap 8: 9 tiles", "overlap 4: 4 tiles"]
    assert all("PSNR" in line and "jump" in line for line in lines)
