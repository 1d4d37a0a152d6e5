"""The calibration pass, and packs that are built with it."""

import itertools
import json
import shutil
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import planner.calibrate.run as run_module
from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack, verify_pack
from planner.allocate.vatmp import allocate_timesteps
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.build.calibrated_build import (
    CalibrationRun,
    build_calibrated,
    measure_inputs,
)
from planner.build.work_folder import work_folder
from planner.calibrate.calibration_file import read_calibration, write_calibration
from planner.calibrate.cost import estimate_cost
from planner.calibrate.images import choose_images
from planner.calibrate.pipelines import default_crop_px, full_precision_pipeline
from planner.calibrate.settings import CalibrationSettings
from planner.recipes import recipe_settings
from planner.target import parse_target
from planner.timesteps import sampling_timesteps
from runtime.images.image_io import read_image
from runtime.load import load_pack
from runtime.sampling.sampler import initial_noise, sample
from runtime.upscale import encode_image
from schemas.errors import ImageError, UsageError
from tests.planner.build.test_build import files
from tests.planner.calibration_setup import CROP_PX, make_setup

CPU = torch.device("cpu")


def settings(recipe="q-dit4sr", target="W4A4", **fields):
    given = recipe_settings(recipe, parse_target(target))
    ranks = {r: 2 for r in ("global_rank", "local_rank") if getattr(given, r)}
    return recipe_settings(recipe, parse_target(target), **{**ranks, **fields})


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def checkpoint(setup):
    return open_checkpoint(setup.checkpoint)


@pytest.fixture(scope="module")
def base(setup, checkpoint):
    return find_base_model(checkpoint, setup.base)


@pytest.fixture(scope="module")
def run(setup):
    return CalibrationRun(setup.images, CalibrationSettings(images=3))


@pytest.fixture(scope="module")
def measured(tmp_path_factory, checkpoint, base, run):
    work = tmp_path_factory.mktemp("work") / "w"
    return measure_inputs(checkpoint, settings(), base, run, work)


# images


def test_crops_are_seeded_and_lie_within_their_images(setup):
    chosen = choose_images(setup.images, CalibrationSettings(images=3), CROP_PX)
    assert chosen == choose_images(setup.images, CalibrationSettings(images=3), CROP_PX)
    other = choose_images(setup.images, CalibrationSettings(images=3, seed=1), CROP_PX)
    assert [r.name for r in other.records] == [r.name for r in chosen.records]
    assert other.records != chosen.records
    for path, record in zip(chosen.paths, chosen.records, strict=True):
        assert path.name == record.name
        with Image.open(path) as image:
            width, height = image.size
        assert record.width == record.height == CROP_PX
        assert record.left + CROP_PX <= width
        assert record.top + CROP_PX <= height
    assert chosen.warnings == ()


def test_of_too_many_images_a_seeded_choice_is_used(setup):
    chosen = [
        choose_images(setup.images, CalibrationSettings(images=2, seed=seed), CROP_PX).paths
        for seed in range(6)
    ]
    assert {len(paths) for paths in chosen} == {2}
    assert len(set(chosen)) > 1


def test_hidden_files_are_no_images_and_others_are_said(setup, tmp_path):
    for image in setup.images.iterdir():
        (tmp_path / image.name).write_bytes(image.read_bytes())
        (tmp_path / f"._{image.name}").write_bytes(b"macOS")
    (tmp_path / "notes.txt").touch()
    chosen = choose_images(tmp_path, CalibrationSettings(images=2), CROP_PX)
    assert not [path for path in chosen.paths if path.name.startswith(".")]
    assert f"{tmp_path}: 1 file skipped (.txt)" in chosen.warnings


def test_too_few_or_too_small_images_are_a_warning(setup):
    chosen = choose_images(setup.images, CalibrationSettings(), 10)
    assert [(r.width, r.height) for r in chosen.records] == [(9, 9), (9, 10), (9, 10)]
    assert len(chosen.warnings) == 2
    assert "3 images; 32" in chosen.warnings[0]
    assert "smaller than 10 px" in chosen.warnings[1]


def test_no_images_at_all_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="no image"):
        choose_images(tmp_path, CalibrationSettings(), 4)
    with pytest.raises(UsageError, match="no such folder"):
        choose_images(tmp_path / "nowhere", CalibrationSettings(), 4)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"a\.png"):
        choose_images(tmp_path, CalibrationSettings(), 4)


def test_the_default_crop_fills_one_tile(base):
    assert default_crop_px(base) == CROP_PX


@pytest.mark.parametrize("fields", [{"images": 0}, {"crop_px": 0}, {"seed": -1}, {"seed": 2**63}])
def test_calibration_settings_out_of_range_are_refused(fields):
    with pytest.raises(UsageError):
        CalibrationSettings(**fields)


# the pass


def test_the_statistics_are_those_of_the_network_with_quantized_weights(measured, setup, base, run):
    """By hand: one hook, the runtime's own loop, weights quantized and activations not."""
    found = measured.calibration
    assert found.network == "quantized"
    assert measured.weights is not None
    pipeline = replace(
        load_pack(measured.weights, device=CPU, dtype=torch.float32, backend="reference"),
        bits_at=lambda _timestep: None,
    )
    name = "transformer_blocks.1.ff.net.2"
    squares = []
    hook = pipeline.network.get_submodule(name).register_forward_pre_hook(
        lambda _module, arguments: squares.append(arguments[0].double().square().mean().item())
    )
    for index, image in enumerate(found.images):
        crop = read_image(setup.images / image.name).rgb
        crop = crop[..., image.top : image.top + CROP_PX, image.left : image.left + CROP_PX]
        control = encode_image(pipeline, crop, pipeline.sampling).control
        assert control.shape[-2:] == (16, 16)
        sample(
            pipeline.network,
            control,
            pipeline.prompts,
            pipeline.sampling,
            noise=initial_noise(tuple(control.shape), run.settings.seed + index),
            patch_size=pipeline.patch_size,
        )
    hook.remove()
    per_image = torch.tensor(squares).reshape(3, 3)  # images x steps, both branches in one call
    torch.testing.assert_close(
        torch.tensor(found.mean_squares[name]), per_image.mean(0), rtol=1e-5, atol=0
    )


def test_the_file_records_what_was_done(measured, setup, checkpoint, base):
    found = measured.calibration
    assert found.source.files == tuple(checkpoint.source_files())
    assert [image.name for image in found.images] == ["0.png", "1.png", "2.png"]
    assert found.timesteps == sampling_timesteps(found.sampling)
    sampling = found.sampling
    assert (sampling.images, sampling.crop_px, sampling.seed) == (3, CROP_PX, 0)
    assert (sampling.steps, sampling.guidance, sampling.shift) == (3, 2.0, 3.0)
    assert found.recipe.settings["global_rank"] == 2
    assert set(found.mean_squares) == set(open_pack(measured.weights).layer_names)
    assert found.channels == {}


def test_a_calibration_file_is_read_back_as_it_was(measured, tmp_path):
    path = tmp_path / "calibration.json"
    write_calibration(path, measured.calibration)
    assert read_calibration(path) == measured.calibration
    again = tmp_path / "again.json"
    write_calibration(again, read_calibration(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("interrupted_at", [0, 1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_pass_goes_on_to_the_same_result(
    measured, checkpoint, base, run, tmp_path, monkeypatch, interrupted_at, error
):
    work, ran = tmp_path / "w", []
    one_image = run_module._run

    def stopping(pipeline, layers, path, *rest):
        if len(ran) == interrupted_at:
            raise error
        ran.append(path.name)
        return one_image(pipeline, layers, path, *rest)

    monkeypatch.setattr(run_module, "_run", stopping)
    with pytest.raises(error) as stopped:
        measure_inputs(checkpoint, settings(), base, run, work)
    if error is KeyboardInterrupt:
        assert f"{interrupted_at} of 3" in str(stopped.value)
    interrupted_at = 99
    # A write that was cut off, as a killed process leaves it.
    (work / "image-00002.safetensors.partial").write_bytes(b"\x10")
    resumed = measure_inputs(checkpoint, settings(), base, run, work)
    assert ran == ["0.png", "1.png", "2.png"]  # no image twice
    assert resumed.calibration == measured.calibration


def test_a_damaged_intermediate_result_is_measured_again(measured, checkpoint, base, run, tmp_path):
    work = tmp_path / "w"
    measure_inputs(checkpoint, settings(), base, run, work)
    (work / "image-00001.safetensors").write_bytes(b"\x00" * 20)
    (work / "weights.qpack" / "manifest.json").unlink()
    again = measure_inputs(checkpoint, settings(), base, run, work)
    assert again.calibration == measured.calibration
    tensors = work / "weights.qpack" / "transformer.safetensors"
    sound = tensors.read_bytes()
    tensors.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    measure_inputs(checkpoint, settings(), base, run, work)
    assert tensors.read_bytes() == sound


@pytest.mark.parametrize("damage", ["flipped", "other names", "another image", "no hash", "shape"])
def test_a_stored_result_that_looks_right_and_is_not_is_measured_again(
    measured, checkpoint, base, run, tmp_path, damage
):
    work = tmp_path / "w"
    measure_inputs(checkpoint, settings(), base, run, work)
    file = work / "image-00001.safetensors"
    sound = file.read_bytes()
    tensors = load_file(file)
    if damage == "flipped":
        file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    elif damage == "another image":
        shutil.copyfile(work / "image-00000.safetensors", file)
    elif damage == "other names":
        save_file({f"x.{name}": tensor for name, tensor in tensors.items()}, file)
    elif damage == "shape":
        save_file({name: tensor[:1].clone() for name, tensor in tensors.items()}, file)
    else:
        save_file(tensors, file)
    again = measure_inputs(checkpoint, settings(), base, run, work)
    assert again.calibration == measured.calibration
    assert file.read_bytes() == sound


def test_unfinished_work_of_another_calibration_is_not_mixed_in(checkpoint, base, run, tmp_path):
    work = tmp_path / "w"
    measure_inputs(checkpoint, settings(), base, run, work)
    with pytest.raises(UsageError, match=r"differs in seed 0 \(now 1\)") as error:
        measure_inputs(checkpoint, settings(seed=1), base, run, work)
    assert "--restart" in error.value.hint
    prompts = {name: tensor + 1 for name, tensor in base.prompts.items()}
    with pytest.raises(UsageError, match="differs in base"):
        measure_inputs(checkpoint, settings(), replace(base, prompts=prompts), run, work)
    other = replace(run, restart=True)
    restarted = measure_inputs(checkpoint, settings(seed=1), base, other, work)
    assert restarted.calibration.recipe.settings["seed"] == 1


def test_a_calibration_needs_vae_and_prompts(checkpoint, base, run, tmp_path):
    for part in ("folder", "prompts"):
        with pytest.raises(UsageError, match="VAE and prompts") as error:
            measure_inputs(
                checkpoint, settings(), replace(base, **{part: None}), run, tmp_path / "w"
            )
        assert "--base" in error.value.hint


def test_the_predicted_cost_counts_every_forward_pass(checkpoint, base, setup):
    pipeline = full_precision_pipeline(checkpoint, "q", base, CPU, torch.float32)
    images = choose_images(setup.images, CalibrationSettings(), CROP_PX)
    cost = estimate_cost(pipeline, images)
    assert (cost.images, cost.steps, cost.branches) == (3, 3, 2)
    assert cost.seconds > 0
    twice = estimate_cost(replace(pipeline, sampling=replace(pipeline.sampling, steps=6)), images)
    assert twice.operations == 2 * cost.operations
    single = replace(pipeline, sampling=replace(pipeline.sampling, guidance=1.0))
    assert estimate_cost(single, images).operations == cost.operations / 2
    assert "3 images x 3 steps x 2 guidance branches" in str(cost)


# packs


def runs(bits):
    return 1 + sum(a != b for a, b in itertools.pairwise(bits))


def test_the_grid_is_vatmps(measured, checkpoint, base, tmp_path):
    build(
        checkpoint,
        tmp_path / "a.qpack",
        settings(target="W4A4.5", segments=2),
        base,
        calibration=measured.calibration,
    )
    pack = verify_pack(tmp_path / "a.qpack")
    expected = allocate_timesteps(measured.calibration.mean_squares, 4.5, segments=2)
    for name in pack.layer_names:
        bits = pack.bit_grid.layers[name].activation_bits
        assert bits == expected[name]
        assert Fraction(sum(bits), 3) <= Fraction(9, 2)
        assert runs(bits) <= 2
    # Three steps at 4.5 bits: 13 whole bits, so one step has more than the others.
    assert any(len(set(layer.activation_bits)) > 1 for layer in pack.bit_grid.layers.values())
    assert pack.manifest.calibration == measured.calibration.sampling
    assert pack.manifest.reached.activation_bits <= 4.5


def test_images_and_file_give_the_same_pack(measured, checkpoint, base, run, tmp_path):
    from_images, from_file = tmp_path / "a.qpack", tmp_path / "b.qpack"
    build_calibrated(checkpoint, from_images, settings(), base, run)
    build(checkpoint, from_file, settings(), base, calibration=measured.calibration)
    assert files(from_images) == files(from_file)
    assert not work_folder(from_images).exists()
    verify_pack(from_images)


def test_layers_kept_in_16_bits_are_not_asked_for(checkpoint, base, run, tmp_path):
    chosen = settings(keep=("attn",))
    build_calibrated(checkpoint, tmp_path / "a.qpack", chosen, base, run)
    grid = open_pack(tmp_path / "a.qpack").bit_grid
    for name, layer in grid.layers.items():
        assert (set(layer.activation_bits) == {16}) == ("attn" in name)


def test_svdquant_is_calibrated_before_it_is_quantized(checkpoint, base, run, tmp_path):
    path = tmp_path / "a.qpack"
    build_calibrated(checkpoint, path, settings("svdquant"), base, run)
    pack = verify_pack(path)
    assert pack.manifest.calibration is not None
    for name in pack.layer_names:
        smoothing = pack.layer(name).smoothing
        assert smoothing is not None
        assert bool(torch.isfinite(smoothing).all())
        assert set(pack.bit_grid.layers[name].activation_bits) == {4}
    # Some layer's channels differ enough for a smoothing other than none.
    assert any(bool((pack.layer(name).smoothing != 1).any()) for name in pack.layer_names)
    # And it runs.
    pipeline = load_pack(path, device=CPU, dtype=torch.float32, backend="reference")
    control = initial_noise((1, 4, 8, 8), 1)
    latent = sample(
        pipeline.network,
        control,
        pipeline.prompts,
        pipeline.sampling,
        noise=initial_noise((1, 4, 8, 8), 0),
        patch_size=pipeline.patch_size,
        bits_at=pipeline.bits_at,
    )
    assert bool(torch.isfinite(latent).all())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variant": "r1"}, "variant r1"),
        ({"mean_squares": {}}, "lacks mean squares"),
        ({"source": None}, "another checkpoint"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(
    measured, checkpoint, base, tmp_path, change, said
):
    if "source" in change:
        source = measured.calibration.source
        file = source.files[0].model_copy(update={"sha256": "0" * 64})
        change = {"source": source.model_copy(update={"files": (file,)})}
    wrong = measured.calibration.model_copy(update=change)
    with pytest.raises(UsageError, match=said):
        build(checkpoint, tmp_path / "a.qpack", settings(), base, calibration=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_without_channels_is_no_use_to_svdquant(measured, checkpoint, base, tmp_path):
    with pytest.raises(UsageError, match="lacks channel statistics"):
        build(
            checkpoint,
            tmp_path / "a.qpack",
            settings("svdquant"),
            base,
            calibration=measured.calibration,
        )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("timesteps", 1), 1000.0, "descend"),
        (("mean_squares", "transformer_blocks.1.ff.net.2"), [1.0], "1 mean squares"),
        (("mean_squares", "transformer_blocks.1.ff.net.2", 0), -1.0, "mean_squares"),
        (("mean_squares", "transformer_blocks.1.ff.net.2", 0), "1", "mean_squares"),
        (("sampling", "images"), 4, "3 images"),
        (("images", 0, "sha256"), "xyz", "sha256"),
        (("format",), "qpack", "format"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_a_damaged_file_is_refused(measured, tmp_path, path, value, said):
    file = tmp_path / "calibration.json"
    write_calibration(file, measured.calibration)
    content = json.loads(file.read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=said):
        read_calibration(file)
