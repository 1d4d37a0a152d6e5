"""``qplan build --calib``, ``qplan calibrate``: the commands."""

import json
import shutil

import pytest

from artifacts.pack.reader import open_pack
from planner.build.work_folder import work_folder
from planner.calibrate.calibration_file import read_calibration
from planner.cli.build_options import MethodOptions
from planner.cli.learn import PlanOptions
from planner.learned.recipes import LEARNED_RECIPES
from planner.recipes import RECIPES
from tests.planner.build.test_build import files
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"))


def arguments(setup, command, *more):
    """A command about the paper's recipe, unless ``more`` names another."""
    paper = ("--recipe", "q-dit4sr")
    return (command, setup.checkpoint, "--base", setup.base, *RANKS, *paper, *more)


def test_a_calibration_and_the_build_that_uses_it_equal_the_build_from_images(setup, tmp_path):
    one, two = tmp_path / "one.qpack", tmp_path / "two.qpack"
    direct = run_qplan(*arguments(setup, "build", "--calib", setup.images, "-o", one))
    assert direct.exit_code == 0, direct.output
    assert "2 guidance branches" in direct.stderr
    assert "warning: " in direct.stderr  # three images for 32
    assert len(direct.stdout.splitlines()) == 1

    file = tmp_path / "calibration.json"
    found = run_qplan(*arguments(setup, "calibrate", "--calib", setup.images, "-o", file))
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith(f"{file}: ")
    assert not work_folder(file).exists()
    built = run_qplan(*arguments(setup, "build", "--calibration", file, "-o", two))
    assert built.exit_code == 0, built.output
    assert files(one) == files(two)


@pytest.mark.parametrize("recipe", ["q-dit4sr", "svdquant"])
def test_a_build_from_images_goes_on_with_the_layers_it_has(setup, tmp_path, monkeypatch, recipe):
    from planner.build.layers import quantize_layer

    options = ("--calib", setup.images, "--recipe", recipe)
    if recipe == "svdquant":
        options += ("--local-rank", 0)
    names, whole, output = [], tmp_path / "whole.qpack", tmp_path / "a.qpack"

    def counted(name, *args):
        if len(names) == 5:
            raise KeyboardInterrupt
        names.append(name)
        return quantize_layer(name, *args)

    assert run_qplan(*arguments(setup, "build", *options, "-o", whole)).exit_code == 0
    command = arguments(setup, "build", *options, "-o", output)
    with monkeypatch.context() as patched:
        patched.setattr("planner.build.layers.quantize_layer", counted)
        stopped = run_qplan(*command)
    assert stopped.exit_code == 130
    images = " and 3 calibration images" if recipe == "svdquant" else ""
    said = f"interrupted: 5 quantized layers{images} kept; the same command goes on from there"
    assert stopped.stderr.splitlines()[-1] == said
    # Without images it is another build.
    plain = run_qplan(*arguments(setup, "build", "-o", output))
    assert_fails(plain, 2, "calibration")
    resumed = run_qplan(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert f"going on with an unfinished build: 5 quantized layers{images} kept" in resumed.stderr
    assert files(output) == files(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.qpack", "whole.qpack"]


def test_calibrate_as_json(setup, tmp_path):
    file = tmp_path / "c.json"
    result = run_qplan(
        *arguments(setup, "calibrate", "--calib", setup.images, "-o", file, "--json"),
        *("--calib-images", 2, "--calib-crop", 3, "--calib-seed", 8, "--steps", 2),
        *("--guidance", 1),
    )
    assert result.exit_code == 0, result.output
    said, calibration = json.loads(result.stdout), read_calibration(file)
    assert (said["images"], said["steps"]) == (2, 2)
    assert said["layers"] == len(calibration.mean_squares)
    sampling = calibration.sampling
    assert (sampling.images, sampling.crop_px, sampling.seed) == (2, 3, 8)
    assert (sampling.steps, sampling.guidance) == (2, 1.0)
    assert "1 guidance branches" in result.stderr


def test_one_calibration_serves_other_targets(setup, tmp_path):
    file = tmp_path / "c.json"
    run_qplan(*arguments(setup, "calibrate", "--calib", setup.images, "-o", file))
    for target, mean in (("W4A3.5", 3.5), ("W3A4", 4)):
        path = tmp_path / f"{target}.qpack"
        result = run_qplan(
            *arguments(setup, "build", "--calibration", file, "--target", target, "-o", path)
        )
        assert result.exit_code == 0, result.output
        for layer in open_pack(path).bit_grid.layers.values():
            assert sum(layer.activation_bits) <= mean * len(layer.activation_bits)


@pytest.mark.parametrize(("options", "used"), [((), False), (("--vatmp",), True)])
def test_from_six_bits_on_a_calibration_is_used_only_when_asked_for(setup, tmp_path, options, used):
    path = tmp_path / "a.qpack"
    result = run_qplan(
        *arguments(setup, "build", "--calib", setup.images, "-o", path),
        *("--target", "W4A6", *options),
    )
    assert result.exit_code == 0, result.output
    assert ("does not use a calibration" in result.stderr) == (not used)
    assert (open_pack(path).manifest.calibration is not None) == used


@pytest.mark.parametrize(
    ("more", "code", "parts"),
    [
        (("--recipe", "awq"), 2, ["'awq'", "quarot"]),
        (("--recipe", "svdquant"), 2, ["svdquant", "--calib"]),
        (("--calib", "EMPTY"), 2, ["no image"]),
        (("--calib", "NOWHERE"), 2, ["no such folder"]),
        (("--calibration", "NOWHERE"), 2, ["cannot be read"]),
        (("--calib", "IMAGES", "--calibration", "x.json"), 2, ["twice"]),
        (("--calib", "IMAGES", "--calib-images", 0), 2, ["0 calibration images"]),
        (("--calib", "IMAGES", "--calib-crop", -1), 2, ["-1 px"]),
        (("--calib", "IMAGES", "--device", "tpu"), 2, ["--device tpu"]),
        (("--device", "tpu"), 2, ["--device tpu"]),
        (("--calib", "BROKEN"), 4, ["bad.png"]),
        (("--target", "W3.5A4", "--no-vasmp"), 2, ["3.5 weight bits"]),
        (("--segments", 0), 2, ["0 segments"]),
    ],
)
def test_wrong_input_leaves_nothing_behind(setup, tmp_path, more, code, parts):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bad.png").write_bytes(b"\x89PNG nothing")
    places = {
        "EMPTY": tmp_path / "empty",
        "NOWHERE": tmp_path / "nowhere",
        "IMAGES": setup.images,
        "BROKEN": tmp_path / "broken",
    }
    before = sorted(tmp_path.iterdir())
    options = [places.get(option, option) for option in more]
    result = run_qplan(*arguments(setup, "build", "-o", tmp_path / "a.qpack"), *options)
    assert_fails(result, code, *parts)
    assert sorted(tmp_path.iterdir()) == before


def test_a_calibration_without_a_base_says_what_it_lacks(setup, tmp_path):
    result = run_qplan(
        "build", setup.checkpoint, "--calib", setup.images, "-o", tmp_path / "a.qpack"
    )
    assert_fails(result, 2, "VAE and prompts", "--base")


def test_an_existing_calibration_is_not_replaced_unasked(setup, tmp_path):
    file = tmp_path / "c.json"
    file.write_text("mine")
    command = arguments(setup, "calibrate", "--calib", setup.images, "-o", file)
    assert_fails(run_qplan(*command), 2, "exists", "--force")
    assert file.read_text() == "mine"
    assert run_qplan(*command, "--force").exit_code == 0
    assert read_calibration(file).format == "qcalibration"
    assert_fails(
        run_qplan(*arguments(setup, "calibrate", "--calib", setup.images, "-o", tmp_path / "x/c")),
        2,
        "cannot be written",
    )


def test_a_damaged_image_is_refused_before_anything_is_kept(setup, tmp_path):
    images, file = tmp_path / "images", tmp_path / "c.json"
    shutil.copytree(setup.images, images)
    cut = images / "zz.png"
    whole = next(images.glob("*.png")).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    command = arguments(setup, "calibrate", "--calib", images, "-o", file)
    assert_fails(run_qplan(*command), 4, "zz.png", "damaged")
    assert not work_folder(file).exists()
    cut.unlink()
    assert run_qplan(*command).exit_code == 0


@pytest.mark.parametrize("command", ["build", "calibrate", "probe"])
def test_the_root_is_no_output(setup, command):
    images = ("--calib", setup.images) if command == "calibrate" else ()
    done = run_qplan(command, setup.checkpoint, "--base", setup.base, *images, "-o", "/")
    assert_fails(done, 2, "/ is no place for an output")


def test_the_help_of_learning_names_every_method_that_a_pack_holds():
    said = PlanOptions.__annotations__["method"].__metadata__[0].help
    for name, recipe in LEARNED_RECIPES.items():
        if recipe.learning().simulated is None:
            assert name in said or name.removeprefix("qartsr-") in said


def test_the_help_names_every_recipe():
    # The option's own text: on a narrow terminal long words are broken.
    said = MethodOptions.__annotations__["recipe"].__metadata__[0].help
    for name in RECIPES:
        stem, _, part = name.partition("-no-")
        assert stem in said
        assert part in said
