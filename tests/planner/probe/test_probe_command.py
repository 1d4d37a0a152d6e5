"""``qplan probe``, and packs whose bits it decides, through the real commands."""

import json

import numpy as np
import pytest

from artifacts.pack.reader import open_pack, verify_pack
from planner.calibrate.settings import IMAGES
from planner.probe import run
from planner.probe.kept_pictures import kept_folder
from planner.probe.sensitivity_file import read_sensitivity
from tests.planner.calibration_setup import CROP_PX, SAMPLING, make_setup
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A checkpoint with everything a probe takes, and its sensitivities."""
    folder = tmp_path_factory.mktemp("probe")
    setup = make_setup(folder)
    file = folder / "sensitivity.json"
    done = run_qplan("probe", setup.checkpoint, "--base", setup.base, "-o", file)
    assert done.exit_code == 0, done.stderr
    return setup, file


def build(setup, out, *options):
    done = run_qplan("build", setup.checkpoint, "--base", setup.base, "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    return verify_pack(out)


def test_the_file_says_what_was_probed(shared):
    _, file = shared
    found = read_sensitivity(file)
    assert found.sampling.images == run.PICTURES
    assert found.sampling.crop_px == CROP_PX
    assert found.images == ()
    assert len(found.timesteps) == SAMPLING["steps"]
    values = [layer.weight for layer in found.layers.values()]
    assert all(value > 0 for value in values)
    for layer in found.layers.values():
        assert min(layer.activation) > 0
        assert min(layer.output) > 0


def test_a_probe_repeats_itself(shared, tmp_path):
    setup, file = shared
    again = tmp_path / "again.json"
    done = run_qplan("probe", setup.checkpoint, "--base", setup.base, "-o", again)
    assert done.exit_code == 0, done.stderr
    assert again.read_bytes() == file.read_bytes()


def test_photos_in_place_of_generated_pictures(shared, tmp_path):
    setup, file = shared
    out = tmp_path / "photos.json"
    done = run_qplan(
        "probe",
        setup.checkpoint,
        "--base",
        setup.base,
        "--calib",
        setup.images,
        "-o",
        out,
        "--json",
    )
    assert done.exit_code == 0, done.stderr
    there = len(list(setup.images.iterdir()))
    assert run.PICTURES != there < IMAGES  # all of them, as a calibration would take
    assert json.loads(done.stdout)["pictures"] == there
    photos, generated = read_sensitivity(out), read_sensitivity(file)
    assert len(photos.images) == there
    logs = [
        np.log([layer.weight for layer in found.layers.values()]) for found in (photos, generated)
    ]
    assert np.corrcoef(logs)[0, 1] > 0.9


def test_the_standard_recipe_goes_by_the_file_or_probes_itself(shared, tmp_path):
    setup, file = shared
    given = build(setup, tmp_path / "a.qpack", "--recipe", "standard", "--sensitivity", file)
    own = build(setup, tmp_path / "b.qpack", "--recipe", "standard")
    assert given.bit_grid == own.bit_grid
    assert given.manifest == own.manifest
    reached = given.manifest.reached
    assert reached.weight_bits <= 4
    assert 3.99 <= reached.activation_bits <= 4
    steps = {bits for layer in given.bit_grid.layers.values() for bits in layer.activation_bits}
    assert len(steps) > 1
    assert min(steps) >= 2

    shares = [layer.error_share for layer in given.manifest.layers.values()]
    assert sum(s.weights + s.activations for s in shares) == pytest.approx(1, abs=1e-3)
    shown = run_qplan("inspect", tmp_path / "a.qpack").stdout
    assert "W error" in shown
    assert "A error" in shown

    residual = build(setup, tmp_path / "c.qpack", "--recipe", "q-dit4sr-residual")
    assert residual.bit_grid != given.bit_grid
    assert {layer.error_share for layer in residual.manifest.layers.values()} == {None}
    assert "W error" not in run_qplan("inspect", tmp_path / "c.qpack").stdout


def test_bits_follow_the_sensitivities(shared, tmp_path):
    """A layer made far more important than any gets the most bits, at that step alone."""
    setup, file = shared
    content = json.loads(file.read_text())
    name = sorted(content["layers"])[0]
    before = build(setup, tmp_path / "a.qpack", "--recipe", "standard", "--sensitivity", file)
    content["layers"][name]["weight"] = 1e6 * max(x["weight"] for x in content["layers"].values())
    content["layers"][name]["activation"][1] = 1e9 * max(
        value for layer in content["layers"].values() for value in layer["activation"]
    )
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(content))
    after = build(setup, tmp_path / "b.qpack", "--recipe", "standard", "--sensitivity", edited)
    assert after.bit_grid.layers[name].weight_bits == 8
    assert after.bit_grid.layers[name].activation_bits[1] == 8
    assert (
        after.bit_grid.layers[name].activation_bits[0]
        <= (before.bit_grid.layers[name].activation_bits[0])
    )


def test_what_a_recipe_does_not_go_by_is_told(shared, tmp_path):
    setup, file = shared
    bare = setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    done = run_qplan(
        *("build", bare, "--recipe", "rtn", "--sensitivity", file, "-o", tmp_path / "a.qpack")
    )
    assert done.exit_code == 0, done.stderr
    assert "warning: at W4A4 recipe rtn does not use a sensitivity" in done.stderr.splitlines()


def test_sensitivities_of_other_steps_serve(shared, tmp_path):
    """Like a bit grid, they are read at the nearest of their own timesteps."""
    setup, _ = shared
    file = tmp_path / "two.json"
    done = run_qplan("probe", setup.checkpoint, "--base", setup.base, "--steps", 2, "-o", file)
    assert done.exit_code == 0, done.stderr
    moments = ("--recipe", "standard", "--weight-rounding", "gptq")
    pack = build(setup, tmp_path / "a.qpack", *moments, "--steps", 5, "--sensitivity", file)
    assert pack.manifest.sampling.steps == 5
    assert len(pack.bit_grid.timesteps) == 2


def test_unquantized_activations_stay_so(shared, tmp_path):
    setup, file = shared
    pack = build(
        setup,
        tmp_path / "a.qpack",
        *("--recipe", "standard", "--sensitivity", file, "--target", "W3A16"),
    )
    bits = {bits for layer in pack.bit_grid.layers.values() for bits in layer.activation_bits}
    assert bits == {16}


def test_what_cannot_be_done(shared, tmp_path):
    setup, file = shared
    bare = setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    out = tmp_path / "x.qpack"
    done = run_qplan("build", bare, "--recipe", "standard", "-o", out)
    assert_fails(done, 2, "decides bits by sensitivity", "--base")
    assert leftovers(tmp_path) == []
    assert_fails(
        run_qplan("build", bare, "--recipe", "standard", "--sensitivity", bare, "-o", out), 2
    )
    content = json.loads(file.read_text())
    content["source"]["files"][0]["sha256"] = "0" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    done = run_qplan("build", bare, "--recipe", "standard", "--sensitivity", other, "-o", out)
    assert_fails(done, 2, "of another checkpoint")
    done = run_qplan(
        *("build", setup.checkpoint, "--base", setup.base, "--sensitivity", other, "-o", out)
    )
    assert_fails(done, 2, "of another checkpoint")  # and not after second moments were measured
    assert leftovers(tmp_path) == []
    gone = ("--recipe", "rtn", "--sensitivity", tmp_path / "gone.json", "-o", out)
    assert_fails(run_qplan("build", bare, *gone), 2, "gone.json: cannot be read")
    assert_fails(run_qplan("probe", setup.checkpoint, "-o", file), 2, "exists")
    guided = ("probe", setup.checkpoint, "--base", setup.base, "--guidance", "nan")
    assert_fails(run_qplan(*guided, "-o", tmp_path / "s.json"), 2, "--guidance nan")
    assert_fails(
        run_qplan("probe", bare, "-o", tmp_path / "s.json"), 2, "needs VAE and prompts", "--base"
    )
    assert not (tmp_path / "s.json").exists()


def test_the_pack_can_be_given_another_grid(shared, tmp_path):
    setup, file = shared
    pack = tmp_path / "a.qpack"
    build(setup, pack, "--recipe", "standard", "--sensitivity", file)
    new = tmp_path / "b.qpack"
    done = run_qplan(
        "regrid", pack, "--set", "attn=W5", "--checkpoint", setup.checkpoint, "-o", new
    )
    assert done.exit_code == 0, done.stderr
    manifest = open_pack(new).manifest
    assert manifest.recipe.name == "standard"
    # What was predicted for other bits is gone.
    assert {layer.error_share for layer in manifest.layers.values()} == {None}


@pytest.fixture
def stopped(monkeypatch):
    """Whatever runs probes is interrupted in the second picture, once; counts pictures."""
    probed = []
    probe_image = run.probe_image

    def interrupted(*arguments, **options):
        probed.append(options["seed"])
        if len(probed) == 2:
            raise KeyboardInterrupt
        return probe_image(*arguments, **options)

    monkeypatch.setattr(run, "probe_image", interrupted)
    return probed


def test_an_interrupted_probe_goes_on_to_the_same_file(shared, tmp_path, stopped):
    setup, file = shared
    out = tmp_path / "again.json"
    command = ("probe", setup.checkpoint, "--base", setup.base, "-o", out)
    done = run_qplan(*command)
    assert done.exit_code == 130
    assert f"1 of {run.PICTURES} pictures of the probe are kept" in done.stderr
    assert not out.exists()
    done = run_qplan(*command)
    assert done.exit_code == 0, done.stderr
    assert stopped == [0, 1, *range(1, run.PICTURES)]
    assert out.read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]


def test_pictures_of_another_probe_or_damaged_ones_are_made_anew(shared, tmp_path, stopped):
    setup, file = shared
    out = tmp_path / "again.json"
    command = ("probe", setup.checkpoint, "--base", setup.base, "-o", out)
    assert run_qplan(*command, "--cotangents", 3).exit_code == 130
    (kept,) = kept_folder(out).glob("picture-*")
    damaged = bytearray(kept.read_bytes())
    damaged[-1] ^= 1
    kept.with_name("picture-00001.safetensors").write_bytes(damaged)
    assert run_qplan(*command).exit_code == 0
    assert stopped == [0, 1, *range(run.PICTURES)]
    assert out.read_bytes() == file.read_bytes()


def test_a_build_goes_on_with_its_probe(shared, tmp_path, stopped):
    setup, _ = shared
    out = tmp_path / "a.qpack"
    command = ("build", setup.checkpoint, "--base", setup.base, "--recipe", "standard", "-o", out)
    assert run_qplan(*command).exit_code == 130
    done = run_qplan(*command)
    assert done.exit_code == 0, done.stderr
    assert stopped == [0, 1, *range(1, run.PICTURES)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.qpack"]


def test_what_is_left_of_a_finished_probe_is_swept_by_the_next(shared, tmp_path):
    setup, file = shared
    kept_folder(tmp_path / "done.json").mkdir()
    (tmp_path / "done.json").write_bytes(file.read_bytes())
    done = run_qplan("probe", setup.checkpoint, "--base", setup.base, "-o", tmp_path / "done.json")
    assert_fails(done, 2, "exists")
    assert [path.name for path in tmp_path.iterdir()] == ["done.json"]
