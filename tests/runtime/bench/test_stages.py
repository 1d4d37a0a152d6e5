"""A whole upscale by stage: parts that add up, pipelines that take turns, and its command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

from runtime.bench.stages import NETWORK, STAGES, measure_stages, stages_json
from runtime.cli import app as cli
from tests.runtime.tiny_pipeline import make_tiny_pipeline

runner = CliRunner()


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.write_to_file(str(tmp_path / "a.png"))
    return tmp_path / "a.png"


def test_stages_add_up_to_the_whole(picture):
    done = []
    result = measure_stages(
        lambda name: make_tiny_pipeline(),
        ["cpu", "reference"],
        picture,
        rounds=3,
        processor_time=False,
        after_round=done.append,
    )
    assert done == [0, 1, 2, 3]
    assert list(result.times) == ["cpu float32", "reference float32"]
    assert result.picture == "a.png, 8x6 px"
    for name, times in stages_json(result)["seconds"].items():
        assert list(times["stages"]) == list(STAGES)
        assert times["passes"] == 2, name
        assert all(each["lowest"] > 0 for each in times["stages"].values())
        highest = sum(each["highest"] for each in times["stages"].values())
        assert times["whole"]["highest"] <= highest + 1e-3
    assert result.times["cpu float32"].stages[NETWORK].median > 0


@pytest.fixture
def loaded(monkeypatch):
    """Loads the tiny pipeline whatever it is asked for, and keeps what it was asked."""
    asked = []

    def load(**options):
        asked.append(options)
        pipeline = make_tiny_pipeline()
        return replace(pipeline, sampling=replace(pipeline.sampling, steps=1, guidance=1.0))

    monkeypatch.setattr("runtime.loader.load_pipeline", load)
    return asked


def test_the_command(loaded, picture, tmp_path):
    out = tmp_path / "new" / "stages.json"
    options = ["bench", "--pack=model.qpack", f"--picture={picture}", "--rounds=1"]
    backends = ["--backend=reference", "--backend=triton"]
    result = runner.invoke(cli.app, [*options, *backends, "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    assert [(str(each["pack"]), each["backend"]) for each in loaded] == [
        ("model.qpack", "reference"),
        ("model.qpack", "triton"),
    ]
    assert "1 steps, guidance 1.0" in result.stdout
    assert "VAE decoder" in result.stdout
    assert "reference float32 is" in result.stdout
    assert json.loads(out.read_text())["seconds"]["triton float32"]["passes"] == 1
    runner.invoke(cli.app, [*options, "--json", "--processor-time"])
    assert loaded[-1]["backend"] == "auto"


def test_the_bundled_photo_is_there(loaded):
    result = runner.invoke(cli.app, ["bench", "--pack=m", "--rounds=1", "--json"])
    assert json.loads(result.stdout)["picture"] == "photo.png, 180x120 px", result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--picture=a.png"],
        ["--pack=m", "--size=512"],
        ["--pack=m", "--batch=2"],
        ["--pack=m", "--compile"],
        ["--pack=m", "--bits=W3A3"],
        ["--pack=m", "--ranks=8+2"],
        ["--pack=m", "--no-peers"],
        ["--pack=m", "--no-layers"],
        ["--pack=m", "--picture=nowhere.png"],
        ["--pack=m", "--picture=."],
        ["--pack=m", "--backend=magic"],
    ],
)
def test_options_that_do_not_go_together(options, loaded):
    result = runner.invoke(cli.app, ["bench", *options])
    assert result.exit_code == 2, result.stderr
    assert not loaded
