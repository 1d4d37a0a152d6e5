"""The command ``qrun eval``: pictures made, reused and judged, with a tiny random model."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from runtime.evaluation import evaluate, methods, metrics
from runtime.evaluation.fidelity import psnr
from runtime.evaluation.metrics import Metric, MetricSet, open_metrics
from runtime.images.image_io import read_image
from schemas.errors import PackError
from tests.artifacts.make_pack import make_pack

LOW = (6, 8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation="srgb")
    path.write_bytes(image.write_to_buffer(path.suffix))


def make_set(folder, count=3, *, truth=True):
    """Low-resolution images and truths four times as large, named as RealSR's are."""
    rng = np.random.default_rng(0)
    for index in range(count):
        low = rng.integers(0, 256, (*LOW, 3), dtype=np.uint8)
        write(folder / "test_LR" / f"c{index}_LR4.png", low)
        if truth:
            large = np.repeat(np.repeat(low, 4, axis=0), 4, axis=1)
            write(folder / "test_HR" / f"c{index}_HR.png", large)
    options = [str(folder / "test_LR")]
    return [*options, "--truth", str(folder / "test_HR")] if truth else options


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "m.qpack"
    make_pack(path)
    return path


@pytest.fixture
def run(qrun):
    return lambda *arguments: qrun("eval", *arguments)


@pytest.fixture
def run_json(run):
    def parsed(*arguments, code=0):
        result = run(*arguments, "--json")
        assert result.exit_code == code, result.stderr
        return json.loads(result.stdout)

    return parsed


def judged(facts, method):
    return [p for one in facts["datasets"] for p in one["pictures"] if p["method"] == method]


def test_hidden_files_are_no_images_and_others_are_said(tmp_path, run):
    given = make_set(tmp_path / "RealSR")
    for name in ("._c0_LR4.png", "notes.txt", "c9.bmp"):
        (tmp_path / "RealSR" / "test_LR" / name).touch()
    result = run(*given, "--metrics", "psnr")
    assert result.exit_code == 0, result.stderr
    assert "mean over 3 images" in result.stdout
    assert "2 files skipped (.bmp, .txt)" in result.stderr


def test_table_has_a_row_for_each_method_and_a_column_for_each_metric(tmp_path, run, loads, pack):
    result = run(*make_set(tmp_path / "RealSR"), "--pack", pack, "--metrics", "psnr,SSIMC")
    assert result.exit_code == 0, result.stderr
    assert "RealSR: mean over 3 images" in result.stdout
    assert "psnr (RGB) ↑" in result.stdout
    assert "ssim (RGB) ↑" in result.stdout
    assert "bicubic" in result.stdout
    assert "m (W4A4.5)" in result.stdout
    assert [call["pack"] for call in loads] == [pack]
    # Without -o nothing is left.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RealSR"]


def test_values_are_those_of_the_written_pictures(tmp_path, run_json, pack):
    out = tmp_path / "out"
    facts = run_json(
        *make_set(tmp_path / "set"), "--pack", pack, "--metrics", "psnr", "-o", out, "--seed", 3
    )
    for entry in judged(facts, "m"):
        result, truth = (read_image(tmp_path / entry[key]).rgb for key in ("picture", "truth"))
        assert entry["values"]["psnr"] == pytest.approx(psnr(result, truth))
        assert entry["picture"] == str(out / "set" / "m" / f"{entry['image']}.png")
    mean = facts["datasets"][0]["means"]["m"]["psnr"]
    values = [entry["values"]["psnr"] for entry in judged(facts, "m")]
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["low"] <= mean["value"] <= mean["high"]
    assert mean["images"] == 3
    pack_facts = facts["methods"][1]
    assert len(pack_facts["checksum"]) == 64
    assert pack_facts["settings"]["seed"] == 3
    assert pack_facts["target"] == {"weight_bits": 4, "activation_bits": 4.5}
    assert facts["versions"]["torch"] == torch.__version__


def test_finished_pictures_are_used_again_only_for_the_same_model_settings_and_input(
    tmp_path, run_json, loads, pack
):
    options = [*make_set(tmp_path / "set"), "--no-bicubic", "--metrics", "psnr"]
    options += ["-o", tmp_path / "out"]

    def reused(*more):
        loads.clear()
        facts = run_json(*options, *more)
        return [entry["reused"] for entry in facts["datasets"][0]["pictures"]]

    model = ("--pack", pack)
    assert reused(*model) == [False] * 3
    assert reused(*model) == [True] * 3
    assert loads == []  # nothing to make: no model is loaded
    assert reused(*model, "--steps", 1) == [False] * 3
    assert reused(*model, "--steps", 1) == [True] * 3

    pictures = tmp_path / "out" / "set" / "m"
    (pictures / "c0_LR4.png").write_bytes((pictures / "c1_LR4.png").read_bytes())
    assert reused(*model, "--steps", 1) == [False, True, True]
    (pictures / "c1_LR4.png.json").write_text("{")
    assert reused(*model, "--steps", 1) == [True, False, True]
    write(tmp_path / "set" / "test_LR" / "c2_LR4.png", np.full((*LOW, 3), 9, np.uint8))
    assert reused(*model, "--steps", 1) == [True, True, False]

    other = tmp_path / "other" / "m.qpack"
    other.parent.mkdir()
    make_pack(other, seed=1)
    assert reused("--pack", other, "--steps", 1) == [False] * 3


def test_models_are_loaded_one_after_the_other(tmp_path, run_json, qrun, tiny, pack):
    other = tmp_path / "m.qpack"
    make_pack(other, seed=1)
    alive = []

    class Counted(torch.nn.Module):
        config = tiny.network.config

        def __init__(self, path):
            super().__init__()
            self.path = path
            alive.append(path)

        def forward(self, *inputs):
            assert alive == [self.path], "two models at once"
            return tiny.network(*inputs)

        def __del__(self):
            alive.remove(self.path)

    def load(**options):
        return replace(tiny, network=Counted(options["pack"]))

    qrun.load = load
    facts = run_json(
        *make_set(tmp_path / "set", 2), "--pack", pack, "--pack", other, "--metrics", "psnr"
    )
    assert [method["name"] for method in facts["methods"]] == ["bicubic", "m", "m-2"]
    assert alive == []


def test_ready_results_need_no_model(tmp_path, run_json, loads):
    options = make_set(tmp_path / "set", 2)
    for index in range(2):
        source = tmp_path / "set" / "test_HR" / f"c{index}_HR.png"
        pixels = pyvips.Image.new_from_buffer(source.read_bytes(), "").numpy()
        write(tmp_path / "theirs" / f"c{index}_LR4_x4.png", pixels // 2)
        write(tmp_path / "perfect" / f"c{index}.png", pixels)
    facts = run_json(
        *options,
        *("--results", f"theirs={tmp_path / 'theirs'}"),
        *("--results", f"perfect={tmp_path / 'perfect'}"),
        *("--metrics", "psnr,ssimc"),
    )
    assert loads == []
    means = facts["datasets"][0]["means"]
    assert means["perfect"]["psnr"]["value"] == pytest.approx(80)
    assert means["perfect"]["ssimc"]["value"] == pytest.approx(1)
    assert means["theirs"]["psnr"]["value"] < means["bicubic"]["psnr"]["value"] < 80


def test_damaged_image_is_left_out_of_every_mean(tmp_path, run, pack):
    options = make_set(tmp_path / "set", 4)
    (tmp_path / "set" / "test_LR" / "c1_LR4.png").write_bytes(b"no image")
    truth = tmp_path / "set" / "test_HR" / "c2_HR.png"
    truth.write_bytes(truth.read_bytes()[:-30])  # its header is good
    result = run(*options, "--pack", pack, "--metrics", "psnr", "--csv", tmp_path / "s.csv")
    assert result.exit_code == 6
    assert "4 of 8 pictures failed" in result.stderr
    assert "failed: set, c1_LR4, bicubic:" in result.stderr
    assert "mean over 2 images" in result.stdout
    assert "2 of 4 images left out of every mean" in result.stdout
    rows = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text())))
    assert len(rows) == 4 * 2
    counted = {row["image"]: row["counted"] for row in rows}
    assert counted == {"c0_LR4": "yes", "c1_LR4": "no", "c2_LR4": "no", "c3_LR4": "yes"}
    assert all((row["value"] == "") == (row["problem"] != "") for row in rows)


def test_image_that_one_method_fails_on_counts_for_none(tmp_path, run_json, monkeypatch, pack):
    """The pack runs out of memory on the second image; bicubic has it, and is not averaged."""
    original = methods.upscale_file

    def hungry(pipeline, source, *rest, **options):
        if source.stem == "c1_LR4":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(pipeline, source, *rest, **options)

    monkeypatch.setattr(methods, "upscale_file", hungry)
    facts = run_json(*make_set(tmp_path / "set"), "--pack", pack, "--metrics", "psnr", code=6)
    (one,) = facts["datasets"]
    assert one["left_out"] == ["c1_LR4"]
    assert one["means"]["bicubic"]["psnr"]["images"] == 2
    entries = judged(facts, "bicubic")
    values = [entry["values"]["psnr"] for entry in entries]
    assert one["means"]["bicubic"]["psnr"]["value"] == pytest.approx((values[0] + values[2]) / 2)
    assert [entry["counted"] for entry in entries] == [True, False, True]
    assert "out of memory" in judged(facts, "m")[1]["error"]


def brightness(needs_truth=False, failing=()):
    """A metric of no reference that fails on pictures of some brightness."""

    def compute(result, _truth):
        value = float(result.mean())
        if any(abs(value - bad) < 1e-6 for bad in failing):
            raise RuntimeError("too bright\nto see")
        return value

    metric = Metric(
        "brightness", "brightness", True, needs_truth, "tests", compute, lambda _device: metric
    )
    return metric


def test_unavailable_metrics_are_said_and_the_others_computed(tmp_path, run, run_json, monkeypatch):
    monkeypatch.setattr(metrics, "check_names", lambda names, have_truth: None)
    reason = "its weights are not on this machine"
    chosen = MetricSet((brightness(),), {"musiq": reason})
    monkeypatch.setattr(metrics, "open_metrics", lambda names: chosen)
    options = [*make_set(tmp_path / "RealLR200", truth=False), "--metrics", "brightness,musiq"]
    result = run(*options)
    assert result.exit_code == 0, result.stderr
    assert "brightness ↓" in result.stdout
    assert f"musiq: unavailable: {reason}" in result.stdout
    assert run_json(*options)["unavailable"] == {"musiq": reason}

    monkeypatch.setattr(metrics, "open_metrics", lambda names: MetricSet((), {"musiq": reason}))
    result = run(*options)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_metric_that_fails_on_an_image_is_averaged_over_the_others(
    tmp_path, run, run_json, monkeypatch
):
    options = [*make_set(tmp_path / "set"), "--metrics", "psnr"]
    out = tmp_path / "out"
    assert run(*options, "-o", out).exit_code == 0
    second = float(read_image(out / "set" / "bicubic" / "c1_LR4.png").rgb.mean())
    both = MetricSet((*open_metrics(["psnr"]).metrics, brightness(failing=[second])), {})
    monkeypatch.setattr(metrics, "open_metrics", lambda names: both)
    facts = run_json(*options, "-o", out)
    means = facts["datasets"][0]["means"]["bicubic"]
    assert (means["psnr"]["images"], means["brightness"]["images"]) == (3, 2)
    problems = [entry["problems"] for entry in judged(facts, "bicubic")]
    assert problems == [{}, {"brightness": "too bright to see"}, {}]
    assert "brightness: over 2 images" in run(*options, "-o", out).stdout


def test_data_set_without_truth_gets_the_other_metrics(tmp_path, run_json, monkeypatch):
    both = MetricSet((*open_metrics(["psnr"]).metrics, brightness()), {})
    monkeypatch.setattr(metrics, "open_metrics", lambda names: both)
    with_truth = make_set(tmp_path / "paired", 2)
    (without,) = make_set(tmp_path / "RealLQ250", 2, truth=False)
    facts = run_json(with_truth[0], without, *with_truth[1:], "--truth", "-", "--metrics", "psnr")
    paired, unpaired = (one["means"]["bicubic"] for one in facts["datasets"])
    assert paired.keys() == {"psnr", "brightness"}
    assert unpaired.keys() == {"brightness"}


def test_full_precision_borrows_from_the_first_pack(tmp_path, run_json, loads, monkeypatch, pack):
    class Opened:
        config = methods.open_pack(pack).config
        parts_dir = None

        def architecture(self, variant):
            return replace(methods.open_pack(pack).architecture, variant=variant)

        def source_files(self):
            return []

    monkeypatch.setattr(methods, "open_checkpoint", lambda path: Opened())
    facts = run_json(
        *make_set(tmp_path / "set", 1),
        *("--pack", pack, "--full-precision", "dit4sr/", "--variant", "r1", "--metrics", "psnr"),
    )
    assert [method["name"] for method in facts["methods"]] == ["bicubic", "full-precision", "m"]
    assert [str(call["full_precision"]) for call in loads] == ["dit4sr", "None"]
    assert loads[0]["pack"] == pack
    assert loads[0]["variant"] == "r1"


def test_only_the_first_images_with_limit(tmp_path, run_json):
    facts = run_json(*make_set(tmp_path / "set", 5), "--limit", 2, "--metrics", "psnr")
    assert facts["datasets"][0]["counted"] == ["c0_LR4", "c1_LR4"]


def test_interruption_says_what_was_kept(tmp_path, run, run_json, monkeypatch, pack):
    original, calls = evaluate.make_record, []

    def interrupted(method, pair):
        calls.append(pair)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(method, pair)

    monkeypatch.setattr(evaluate, "make_record", interrupted)
    options = [*make_set(tmp_path / "set"), "--pack", pack, "--metrics", "psnr"]
    result = run(*options, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert "4 of 6 pictures finished" in result.stderr
    facts = run_json(*options, "-o", tmp_path / "out")
    assert sum(entry["reused"] for entry in facts["datasets"][0]["pictures"]) == 4


def test_pack_that_cannot_run_ends_the_command(tmp_path, run, qrun, pack):
    def broken(**_):
        raise PackError("m.qpack: a file changed")

    qrun.load = broken
    result = run(*make_set(tmp_path / "set"), "--pack", pack, "--metrics", "psnr")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "error: m.qpack: a file changed"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "psnr", "--no-bicubic"], "nothing to measure"),
        (["--metrics", "psnr", "--results", "theirs"], "NAME=DIR"),
        (["--metrics", "psnr", "--results", "theirs=missing"], "no such folder"),
        (["--metrics", "psnr", "--activation-bits", "8"], "no --pack"),
        (["--metrics", "psnr", "--variant", "q"], "--full-precision"),
        (["--metrics", "psnr", "--device", "abacus"], "--device abacus"),
        (["--metrics", "psnr", "--truth", "-"], "2 times --truth"),
        (["--metrics", "psnr", "--csv", "."], "is a folder"),
        (["--metrics", ","], "no name"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_options_that_cannot_be(tmp_path, run, loads, options, said):
    result = run(*make_set(tmp_path / "set", 1), *options)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert loads == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tile", 7], "--tile 7"),
        (["--activation-bits", 9], "1 to 8"),
        (["--backend", "abacus"], "no backend 'abacus'"),
        (["--metrics", "lpps"], "lpps"),
    ],
)
def test_settings_are_checked_before_a_model_is_loaded(tmp_path, run, loads, pack, options, said):
    result = run(*make_set(tmp_path / "set", 1), "--metrics", "psnr", "--pack", pack, *options)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert loads == []


def test_pack_without_parts_asks_for_a_base(tmp_path, run, loads):
    alone = tmp_path / "alone.qpack"
    make_pack(alone, companions=False, prompts=False)
    result = run(*make_set(tmp_path / "set", 1), "--pack", alone, "--metrics", "psnr")
    assert result.exit_code == 2
    assert "--base" in result.stderr
    assert loads == []


def test_truth_of_another_size_is_named_before_a_model_is_loaded(tmp_path, run, loads, pack):
    options = make_set(tmp_path / "set")
    write(tmp_path / "set" / "test_HR" / "c1_HR.png", np.zeros((24, 30, 3), np.uint8))
    result = run(*options, "--pack", pack, "--metrics", "psnr")
    assert result.exit_code == 2
    assert "c1_HR.png is 30 x 24 px, 4 times c1_LR4.png would be 32 x 24" in result.stderr
    assert loads == []


def test_input_without_truth_is_named_before_a_model_is_loaded(tmp_path, run, loads, pack):
    options = make_set(tmp_path / "set")
    (tmp_path / "set" / "test_HR" / "c2_HR.png").unlink()
    result = run(*options, "--pack", pack, "--metrics", "psnr")
    assert result.exit_code == 2
    assert "c2_LR4.png" in result.stderr
    assert loads == []


def test_inputs_are_never_written_over(tmp_path, run):
    folder = tmp_path / "out" / "x" / "bicubic"
    write(folder / "a.png", np.full((*LOW, 3), 7, np.uint8))
    # Two data sets, so that the first result would lie exactly where the second's input lies.
    write(tmp_path / "x" / "test_LR" / "a.png", np.full((*LOW, 3), 9, np.uint8))
    before = (folder / "a.png").read_bytes()
    low = tmp_path / "x" / "test_LR"
    result = run(low, folder, "--truth", low, "--truth", "-", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert (folder / "a.png").read_bytes() == before


def test_help_names_the_conventions(run, qrun):
    text = run("--help").stdout
    assert "qrun eval" in text
    assert "--results" in text


def test_hidden_colours_of_transparent_pictures_are_not_judged(tmp_path, run_json):
    """Result and truth are compared as they are seen, and bicubic enlargement keeps the alpha."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (*LOW, 3), dtype=np.uint8)
    values = []
    for hidden in (0, 255):
        folder = tmp_path / str(hidden)
        seen = np.zeros(LOW, bool)
        seen[:, : LOW[1] // 2] = True
        pixels = np.dstack([np.where(seen[..., None], low, hidden), 255 * seen]).astype(np.uint8)
        write(folder / "test_LR" / "c0_LR4.png", pixels)
        large = np.repeat(np.repeat(pixels, 4, axis=0), 4, axis=1)
        write(folder / "test_HR" / "c0_HR.png", large)
        facts = run_json(
            *(folder / "test_LR", "--truth", folder / "test_HR"),
            *("--metrics", "psnr", "-o", folder / "out"),
        )
        (entry,) = judged(facts, "bicubic")
        values.append(entry["values"]["psnr"])
        assert read_image(Path(entry["picture"])).alpha is not None
    assert values[0] == values[1]
