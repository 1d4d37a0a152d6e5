"""Methods, their pictures and scores, and the tables made of them."""

import importlib.util
import json

import pytest
import torch

from benchmarks.demo_quality import __main__ as command
from benchmarks.demo_quality import report, seams
from benchmarks.demo_quality.dat_light import dat_light
from benchmarks.demo_quality.methods import BICUBIC, Method, check_distinct, full_precision
from benchmarks.demo_quality.pictures import Pictures
from benchmarks.demo_quality.realesrgan import real_esrgan
from benchmarks.demo_quality.scores import score
from schemas.errors import UsageError
from training.evaluation_set import Case

CASES = [
    Case(name, torch.full((1, 3, 32, 32), value), torch.full((1, 3, 8, 8), value))
    for name, value in (("group/a-0", 0.2), ("group/b-0", 0.6))
]


def counting(name="counting", version=1):
    """A method that repeats pixels, and the seeds that it was asked with."""
    seeds = []

    def enlarge(small, seed):
        seeds.append(seed)
        return small.repeat_interleave(4, 2).repeat_interleave(4, 3)

    return Method(name, f"{name} method", {"version": version}, lambda: enlarge), seeds


class CountingJudge:
    def __init__(self):
        self.judged = 0

    def scores(self, picture, truth):
        self.judged += 1
        return {"error": float((picture - truth).abs().max())}


def quiet(_text):
    pass


@pytest.mark.parametrize("make", [real_esrgan, dat_light])
def test_a_peer_that_is_not_installed_says_how_to_get_it(make, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="not installed") as caught:
        make()
    assert "pip install" in caught.value.hint
    assert caught.value.exit_code == 2


def test_unknown_methods_and_missing_photos_end_the_command(tmp_path, capsys):
    assert command.main(["--methods", "lanczos"]) == 2
    assert "lanczos" in capsys.readouterr().err
    assert command.main(["--methods", "bicubic", "--photos", str(tmp_path)]) == 2
    assert "python -m training.photos" in capsys.readouterr().err


def test_two_packs_of_the_same_bits_are_refused():
    with pytest.raises(UsageError, match="w4a4"):
        check_distinct([counting("w4a4")[0], counting("w4a4", version=2)[0]])


def test_pictures_that_are_there_are_not_made_again(tmp_path):
    method, seeds = counting()
    pictures = Pictures(tmp_path, CASES, "blind")
    pictures.make(method, quiet)
    assert seeds == [0, 1]
    pictures.path(method, CASES[1]).unlink()
    pictures.make(method, quiet)
    assert seeds == [0, 1, 1]
    for picture, case in zip(pictures.of(method), CASES, strict=True):
        assert torch.allclose(picture, case.truth, atol=1 / 510)


def test_another_version_or_set_has_pictures_of_its_own(tmp_path):
    folders = {
        Pictures(tmp_path, CASES, name).folder(counting(version=version)[0])
        for name in ("blind", "clean")
        for version in (1, 2)
    }
    assert len(folders) == 4


def test_a_method_that_enlarges_otherwise_is_an_error(tmp_path):
    method = Method("none", "none", {}, lambda: lambda small, _seed: small)
    with pytest.raises(RuntimeError, match="group/a-0"):
        Pictures(tmp_path, CASES, "blind").make(method, quiet)


def test_scores_are_kept_beside_the_pictures(tmp_path):
    method, _ = counting()
    pictures, judge = Pictures(tmp_path, CASES, "blind"), CountingJudge()
    pictures.make(method, quiet)
    first = score(pictures, method, lambda: judge, quiet)
    assert list(first) == ["group/a-0", "group/b-0"]
    assert score(pictures, method, lambda: judge, quiet) == first
    assert judge.judged == 2


def test_bicubic_and_the_network_enlarge_four_times():
    small = torch.full((1, 3, 32, 32), 0.5)
    assert BICUBIC.open()(small, 0).shape == (1, 3, 128, 128)
    method = full_precision(command.MODEL)
    assert method.label == "dit4sr-mini, full precision"
    json.dumps(method.identity)


def scores_of(psnr, power):
    names = ("ssim", "fsim", "gmsd", "vif", "nlpd", "ciede2000", "features", "piqe", "brisque")
    values = dict.fromkeys([*names, "colour_drift"], 0.5) | {
        "peak_8px_db": 1.0,
        "beside_8px_db": 0.3,
        "peak_4px_db": -1.0,
    }
    values |= {"grid_images_db": 2.0, "ragged_edges_db": 0.5}
    values |= {"upper_octave": power, "truth_upper_octave": 2.0}
    values |= {"flat_deviation": 1.5, "truth_flat_deviation": 1.0}
    return {f"crop-{i}": {**values, "psnr_db": psnr + i} for i in range(3)}


def test_tables_show_means_differences_and_flaws():
    scores = {"bicubic": scores_of(20, 0.0), "ours": scores_of(22, 1.0)}
    quality = report.quality_table(scores).splitlines()
    assert quality[2].startswith("| bicubic | 21.00 |")
    assert quality[3].startswith("| ours | **23.00** |")
    assert quality[3].endswith("| 0.50 (0.50) |")
    assert "**+2.00 [+2.00, +2.00]**" in report.difference_table(scores, "bicubic")
    flaws = report.flaw_table(scores, {"ours": [1.0, 1.0]})
    assert "| ours | 1.50 | 1.50 | 0% | +1.0 [+1.0, +1.0] | +0.3 [+0.3, +0.3] |" in flaws
    assert "| +2.0 [+2.0, +2.0] | +0.5 [+0.5, +0.5] | 1.00 [1.00, 1.00] |" in flaws
    assert "| pack | 31.00 [30.00, 32.00] |" in report.pack_table({"pack": [30.0, 32.0]})
    content = report.to_json(scores, {}, {"kind": "blind"})
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_tables_replace_tables_and_leave_words_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Above.\n\n<!-- quality -->\nold\n<!-- end of quality -->\n\nBelow.\n")
    command._put_in(page, {"quality": "new", "flaws": "none"})
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("Above.\n\n<!-- quality -->\nnew\n<!-- end of quality -->\n\nBelow.\n")
    assert "<!-- flaws -->\nnone\n" in text


def test_seams_are_looked_for_where_tiles_begin_and_end(monkeypatch):
    monkeypatch.setattr(seams, "evaluation_set", lambda *_a, **_k: list(range(30)))
    found = seams.seam_cases(None, "blind", 8)
    assert found.borders == [160, 192, 256, 352]
    assert len(found.cases) == 8
