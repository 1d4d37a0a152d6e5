"""A table of modulations from the checkpoint to the picture, through the real commands."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

import qdit4sr
from planner.cli.app import app as qplan
from runtime.cli.app import app as qrun
from runtime.evaluation.methods import ModelOptions, pack_methods
from runtime.loader import load_pipeline
from runtime.sampling.settings import SamplingOptions
from schemas.errors import UsageError
from tests.runtime.base.published import make_bare_transformer, make_published_base

SAMPLING = {"steps": 2, "guidance": 2.0, "shift": 3.0, "tile_latent": 16, "overlap_latent": 4}
FIXED = ("--activation-bits", 8, "--color-fix", "none")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Checkpoint, base, and a pack for each choice."""
    folder = tmp_path_factory.mktemp("tables")
    base = make_published_base(folder / "sd35")
    checkpoint = folder / "m"
    checkpoint.mkdir()
    shutil.move(make_bare_transformer(folder / "m.safetensors"), checkpoint)
    (checkpoint / "sampling.json").write_text(json.dumps({**SAMPLING, "min_side_px": 32}))
    for choice in ("table", "both"):
        pack = folder / f"{choice}.qpack"
        done = call(qplan, "build", checkpoint, "--base", base, "--modulation", choice, "-o", pack)
        assert done.exit_code == 0, done.stderr
    return checkpoint, base, folder / "table.qpack", folder / "both.qpack"


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.write_to_file(str(tmp_path / "a.png"))
    return tmp_path / "a.png"


def call(app, *words):
    return CliRunner().invoke(app, [str(word) for word in words])


def upscale(photo, name, *options):
    out = photo.with_name(name)
    done = call(qrun, "upscale", photo, "-o", out, *FIXED, *options)
    assert done.exit_code == 0, done.stderr
    return pyvips.Image.new_from_buffer(out.read_bytes(), "").numpy(), done.stderr


def test_its_own_steps_need_nothing_more(shared, photo):
    checkpoint, _, table, both = shared
    alone, said = upscale(photo, "alone.png", "--pack", table)
    assert "modulations" not in said
    beside, _ = upscale(photo, "beside.png", "--pack", table, "--checkpoint", checkpoint)
    assert np.array_equal(alone, beside)
    upscale(photo, "both.png", "--pack", both)


def test_other_steps(shared, photo):
    checkpoint, _, table, both = shared
    done = call(qrun, "upscale", photo, "--pack", table, "--steps", 3)
    assert done.exit_code == 2
    assert "--steps 3: the pack has modulations for its own 2 steps alone" in done.stderr
    assert "--checkpoint" in done.stderr
    for name, options in {
        "checkpoint.png": ("--pack", table, "--checkpoint", checkpoint),
        "both.png": ("--pack", both),
    }.items():
        upscale(photo, name, *options, "--steps", 3)


def test_the_checkpoint_must_be_the_packs_source(shared, photo, tmp_path):
    _, _, table, both = shared
    other = make_bare_transformer(tmp_path / "other.safetensors")
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    done = call(qrun, "upscale", photo, "--pack", table, "--checkpoint", other)
    assert done.exit_code == 2
    assert "made from another checkpoint" in done.stderr
    _, said = upscale(photo, "b.png", "--pack", both, "--checkpoint", other)
    assert "has all its layers" in said
    done = call(qrun, "upscale", photo, "--full-precision", other, "--checkpoint", other)
    assert done.exit_code == 2


def test_another_prompt_keeps_the_pooled_vector(shared, photo):
    checkpoint, base, table, both = shared
    plain, _ = upscale(photo, "plain.png", "--pack", table)
    prompt = ("--base", base, "--prompt", "a cat", "--negative-prompt", "")
    kept, said = upscale(photo, "kept.png", "--pack", table, *prompt)
    assert "its pooled vector stays the pack's" in said
    assert not np.array_equal(plain, kept)
    computed, said = upscale(
        photo, "computed.png", "--pack", table, *prompt, "--checkpoint", checkpoint
    )
    assert "stays the pack's" not in said
    assert not np.array_equal(kept, computed)
    upscale(photo, "both.png", "--pack", both, *prompt)


def test_captions_keep_it_too(shared, photo):
    _, base, table, _ = shared
    captions = photo.with_name("captions")
    captions.mkdir()
    (captions / "a.txt").write_text("a cat")
    _, said = upscale(photo, "c.png", "--pack", table, "--base", base, "--prompt-dir", captions)
    assert "its pooled vector stays the pack's" in said


def test_eval_knows_before_it_loads(shared, photo):
    checkpoint, _, table, both = shared
    options = ModelOptions(never, SamplingOptions(steps=3), device="cpu")
    with pytest.raises(UsageError, match="its own 2 steps"):
        pack_methods([table], options)
    assert len(pack_methods([both], options)) == 1
    assert len(pack_methods([table], replace(options, checkpoint=checkpoint))) == 1
    done = call(qrun, "eval", photo.parent, "--checkpoint", checkpoint)
    assert done.exit_code == 2
    assert "no --pack" in done.stderr


def test_eval_reads_the_source(shared, photo):
    checkpoint, _, table, _ = shared
    options = ModelOptions(load_pipeline, SamplingOptions(steps=3), checkpoint=checkpoint)
    (method,) = pack_methods([table], options)
    out = photo.with_name("out.png")
    method.load()(photo, out, lambda done, total: None)
    assert out.is_file()


def never(**options):
    raise AssertionError("loaded")


def test_what_the_readme_does_from_python_works_with_such_a_pack(
    shared, photo, tmp_path, monkeypatch
):
    _, _, table, _ = shared
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("artifacts/demo").mkdir(parents=True)
    shutil.copy(photo, "artifacts/demo/photo.png")
    monkeypatch.setattr(qdit4sr, "build", lambda _source, out, **_: shutil.copytree(table, out))
    names = {}
    exec(block, names)
    assert names["image"].size == (32, 24)
    assert Path("photo_x4.png").is_file()
