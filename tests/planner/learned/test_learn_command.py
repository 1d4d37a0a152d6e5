"""``qplan learn``, from a pack to a better one."""

import json
import shutil

import pytest

import planner.learned.learn as learn_module
from artifacts.pack.reader import open_pack, verify_pack
from planner.build.work_folder import work_folder
from planner.settings import LEARNED_PREFIX
from tests.planner.build.test_build import files
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

STEPS = ("--block-steps", 2, "--whole-steps", 40, "--batch", 2, "--rate", 0.01)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"), images=4)


@pytest.fixture(scope="module")
def packs(tmp_path_factory, setup):
    """A smoothed pack of 3-bit weights, and one that is rotated and has 8-bit factors."""
    folder = tmp_path_factory.mktemp("packs")
    shared = ("--base", setup.base, "--calib", setup.images, "--device", "cpu")
    for name, options in {
        "smoothed": ("--recipe", "svdquant", "--global-rank", 2, "--target", "W3A4"),
        "rotated": ("--recipe", "quarot", "--global-rank", 2, "--target", "W3A4"),
        "plain": ("--recipe", "rtn", "--target", "W3A4"),
    }.items():
        used = shared if name == "smoothed" else shared[:2]
        result = run_qplan(
            "build", setup.checkpoint, *options, *used, "-o", folder / f"{name}.qpack"
        )
        assert result.exit_code == 0, result.output
    return folder


def learn(setup, pack, out, *options):
    return run_qplan(
        "learn",
        pack,
        *("--checkpoint", setup.checkpoint, "--calib", setup.images, "--device", "cpu"),
        *("-o", out, *options),
    )


@pytest.mark.parametrize("method", ["qartsr", "ptq4dit", "passionsr"])
def test_a_pack_learns_and_stays_a_pack(setup, packs, tmp_path, method):
    name = "smoothed" if method == "qartsr" else "plain"
    out = tmp_path / "out.qpack"
    result = learn(setup, packs / f"{name}.qpack", out, "--method", method, *STEPS, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["learned"]["after_db"] > facts["learned"]["before_db"]
    verify_pack(out)
    before, after = open_pack(packs / f"{name}.qpack"), open_pack(out, verify_hashes=True)
    assert after.bit_grid == before.bit_grid
    if method == "qartsr":  # the others add smoothing
        assert after.manifest.transformer_bytes == before.manifest.transformer_bytes
    assert after.manifest.recipe.name == method
    assert after.manifest.recipe.settings[f"{LEARNED_PREFIX}batch"] == 2
    assert after.manifest.calibration.images == 4
    learned_bounds = any(record.token_step != 1 for record in after.manifest.layers.values())
    assert learned_bounds == (method == "passionsr")
    assert not work_folder(out).exists()


def test_an_interrupted_run_goes_on_to_the_same_bytes(setup, packs, tmp_path, monkeypatch):
    pack = packs / "smoothed.qpack"
    whole, stopped = tmp_path / "whole.qpack", tmp_path / "stopped.qpack"
    assert learn(setup, pack, whole, *STEPS).exit_code == 0

    monkeypatch.setattr(learn_module, "SAVE_EVERY", 3)
    real = learn_module.relative_error
    count = 0

    def stops(found, wanted):
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return real(found, wanted)

    monkeypatch.setattr(learn_module, "relative_error", stops)
    interrupted = learn(setup, pack, stopped, *STEPS)
    assert interrupted.exit_code == 130
    assert "what was learned kept; the same command goes on" in interrupted.stderr
    assert (work_folder(stopped) / learn_module.STATE_FILE).is_file()
    result = learn(setup, pack, stopped, *STEPS)
    assert result.exit_code == 0, result.output
    assert "going on" in result.stderr
    assert {n for n in files(whole) if files(whole)[n] != files(stopped)[n]} == set()

    other = learn(setup, pack, stopped, *STEPS, "--force", "--whole-steps", 1)
    assert other.exit_code == 0, other.output  # nothing unfinished is left


def test_what_cannot_learn_is_refused(setup, packs, tmp_path):
    pack, out = packs / "smoothed.qpack", tmp_path / "out.qpack"
    assert_fails(learn(setup, pack, out, "--method", "magic"), 2, "magic", "qartsr")
    assert_fails(
        learn(setup, pack, out, "--method", "flatquant"), 2, "transform", "benchmarks.learned"
    )
    assert_fails(learn(setup, pack, out, "--parts", "timestep-bounds"), 2, "timestep-bounds")
    assert_fails(learn(setup, pack, out, "--parts", "adaround,factors"), 2, "adaround")
    assert_fails(learn(setup, pack, out, "--parts", "luck"), 2, "luck")
    assert_fails(learn(setup, pack, out, "--calib-images", 1), 2, "two images")
    assert_fails(learn(setup, packs / "rotated.qpack", out, "--parts", "smoothing"), 2, "smoothing")
    assert not out.exists()

    other = make_setup(tmp_path / "other")
    weights = next(other.checkpoint.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_fails(learn(other, pack, out), 2, "another checkpoint")

    assert learn(setup, pack, out, *STEPS[:2], "--whole-steps", 1, "--batch", 1).exit_code == 0
    assert_fails(learn(setup, out, tmp_path / "again.qpack"), 2, "learned already")
    shutil.rmtree(out)
