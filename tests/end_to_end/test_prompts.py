"""A pack of a bare transformer, finished by a base model: texts in, pictures out, real commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import pyvips
from typer.testing import CliRunner

from planner.cli.app import app as qplan
from runtime.cli.app import app as qrun
from tests.runtime.base.published import (
    make_bare_transformer,
    make_published_base,
    make_single_files,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    base = make_published_base(folder / "sd35")
    files = make_single_files(base, folder / "files")
    checkpoint = make_bare_transformer(folder / "m.safetensors")
    pack = folder / "m.qpack"
    done = CliRunner().invoke(qplan, ["build", str(checkpoint), "-o", str(pack)])
    assert done.exit_code == 0, done.stderr
    assert "--base" in done.stderr
    return pack, base, files, checkpoint


@pytest.fixture(scope="module")
def small_pack(shared, tmp_path_factory):
    """The same without the published defaults, which enlarge every image to 512 px."""
    checkpoint = tmp_path_factory.mktemp("small") / "m"
    checkpoint.mkdir()
    shutil.copy(shared[3], checkpoint / "model.safetensors")
    sampling = {"steps": 1, "guidance": 2.0, "shift": 3.0, "tile_latent": 16, "overlap_latent": 4}
    (checkpoint / "sampling.json").write_text(json.dumps({**sampling, "min_side_px": 32}))
    pack = checkpoint.with_suffix(".qpack")
    done = CliRunner().invoke(qplan, ["build", str(checkpoint), "-o", str(pack)])
    assert done.exit_code == 0, done.stderr
    return pack


@pytest.fixture
def run(small_pack, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
        image.write_to_file(str(tmp_path / "in" / name))

    def upscale(name, *options):
        out = tmp_path / name
        fixed = ["--pack", small_pack, "-o", out, "--activation-bits", 8, "--color-fix", "none"]
        command = ["upscale", tmp_path / "in", *fixed, *options]
        done = CliRunner().invoke(qrun, [str(word) for word in command])
        assert done.exit_code == 0, done.stderr
        return [pixels_of(out / f"{stem}_x4.png") for stem in ("a", "b")]

    return upscale


def pixels_of(file: Path):
    return pyvips.Image.new_from_buffer(file.read_bytes(), "").numpy()


def test_a_bare_files_pack_ends_in_a_picture(shared, tmp_path):
    pack, base, *_ = shared
    image = pyvips.Image.black(6, 4, bands=3).copy(interpretation="srgb")
    image.write_to_file(str(tmp_path / "a.png"))
    command = ["upscale", tmp_path / "a.png", "--pack", pack, "--base", base]
    done = CliRunner().invoke(qrun, [*map(str, command), "--steps", "1", "--guidance", "1"])
    assert done.exit_code == 0, done.stderr
    assert pixels_of(tmp_path / "a_x4.png").shape == (16, 24, 3)


def test_texts_change_the_picture(shared, run, tmp_path):
    _pack, base, files, _ = shared
    plain, twin = run("plain", "--base", base)
    assert plain.shape == (24, 32, 3)
    assert np.array_equal(plain, twin)

    other, _ = run("other", "--base", base, "--prompt", "a cat", "--negative-prompt", "")
    assert not np.array_equal(plain, other)

    captions = tmp_path / "captions"
    captions.mkdir()
    (captions / "b.txt").write_text("a cat")
    first, second = run("captioned", "--base", base, "--prompt-dir", captions)
    assert np.array_equal(first, plain)
    assert not np.array_equal(second, plain)

    single = ["--base", files.base, "--clip-l", files.clip_l, "--clip-g", files.clip_g]
    single += ["--t5xxl", files.t5xxl, "--tokenizers", base]
    assert np.array_equal(run("single", *single)[0], plain)


def test_a_pack_can_be_built_from_single_files(shared, tmp_path):
    _, base, files, checkpoint = shared
    encoders = ["--clip-l", files.clip_l, "--clip-g", files.clip_g, "--t5xxl", files.t5xxl]
    single = ["--base", files.base, *encoders, "--tokenizers", base]
    packs = []
    for name, options in (("folder", ["--base", base]), ("files", single)):
        pack = tmp_path / f"{name}.qpack"
        # Prompts are what matters here; a probe at the published 512 px would take minutes.
        own = ["--recipe", "q-dit4sr", "--prompt", "a cat"]
        command = ["build", checkpoint, "-o", pack, *options, *own]
        done = CliRunner().invoke(qplan, [str(word) for word in command])
        assert done.exit_code == 0, done.stderr
        packs.append(json.loads((pack / "manifest.json").read_text())["files"])
    same = {"prompts.safetensors", "transformer.safetensors", "bit_grid.json"}
    assert {name: packs[0][name] for name in same} == {name: packs[1][name] for name in same}
    assert set(packs[0]) == set(packs[1])


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "no VAE"),
        (("--base", "{base}/vae"), 2, "no VAE"),
        (("--base", "{base}/nowhere"), 3, "no such file or folder"),
        (("--base", "{base}", "--prompt-dir", "{base}"), 2, "no caption for any"),
    ],
)
def test_what_is_missing_is_said(shared, tmp_path, options, code, said):
    pack, base, *_ = shared
    image = pyvips.Image.black(4, 4, bands=3).copy(interpretation="srgb")
    image.write_to_file(str(tmp_path / "a.png"))
    words = [option.format(base=base) for option in options]
    done = CliRunner().invoke(
        qrun, ["upscale", str(tmp_path / "a.png"), "--pack", str(pack), *words]
    )
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
