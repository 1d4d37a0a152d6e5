"""Which recipe a build takes when nobody names one, through the real commands."""

import json
import logging
from dataclasses import replace

import pytest
import torch

import qdit4sr
from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.family import FAMILY
from artifacts.family import preset_architecture
from artifacts.pack.reader import open_pack
from planner.build.base_model import find_base_model
from planner.probe import default_recipe as module
from planner.probe.default_recipe import MOST_OPERATIONS, asked_recipe, default_recipe
from planner.probe.run import ProbeSettings
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def bare(setup):
    return setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def too_dear(monkeypatch):
    """Any probe is."""
    monkeypatch.setattr(module, "MOST_OPERATIONS", {"cpu": 1.0})


def build(out, checkpoint, *options):
    """Build a pack: the name of its recipe, and notes about the recipe on stderr."""
    done = run_qplan("build", checkpoint, *RANKS, "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: recipe ")]
    return open_pack(out).manifest.recipe.name, notes


def test_standard_where_the_network_can_be_probed(setup, tmp_path):
    name, notes = build(tmp_path / "a.qpack", setup.checkpoint, "--base", setup.base)
    assert (name, notes) == ("standard", [])
    named = ("--base", setup.base, "--recipe", "standard")
    build(tmp_path / "b.qpack", setup.checkpoint, *named)
    first, second = (open_pack(tmp_path / f"{pack}.qpack") for pack in "ab")
    assert first.manifest == second.manifest


def test_a_bare_file_falls_back_with_one_note_that_names_the_way(bare, setup, tmp_path):
    name, (note,) = build(tmp_path / "a.qpack", bare)
    assert name == "q-dit4sr"
    for part in ("q-dit4sr", "without VAE and prompts", "--base", "--sensitivity FILE"):
        assert part in note
    file = tmp_path / "sensitivity.json"
    probed = run_qplan("probe", bare, "--base", setup.base, "-o", file)
    assert probed.exit_code == 0, probed.stderr
    assert build(tmp_path / "b.qpack", bare, "--sensitivity", file) == ("standard", [])


def test_a_probe_too_dear_falls_back_and_can_be_insisted_on(setup, tmp_path, too_dear):
    inputs = (setup.checkpoint, "--base", setup.base)
    name, (note,) = build(tmp_path / "a.qpack", *inputs)
    assert name == "q-dit4sr"
    for part in ("TFLOP", "on cpu", "--recipe standard insists", "--sensitivity FILE"):
        assert part in note
    assert build(tmp_path / "b.qpack", *inputs, "--recipe", "standard") == ("standard", [])


def test_pictures_that_the_network_cannot_take_whole(setup, tmp_path):
    crop = ("--calib-crop", 1000)
    name, (note,) = build(tmp_path / "a.qpack", setup.checkpoint, "--base", setup.base, *crop)
    assert name == "q-dit4sr"
    assert "4000 px" in note
    inputs = (setup.checkpoint, "--base", setup.base, "--recipe", "standard", *crop)
    done = run_qplan("build", *inputs, "-o", tmp_path / "b.qpack")
    assert_fails(done, 2, "4000 px", "smaller pictures")


def test_standard_by_name_without_a_way_to_probe_is_an_error(bare, tmp_path):
    for options in (("--recipe", "standard"), ("--budget", "bit-operations")):
        done = run_qplan("build", bare, *RANKS, *options, "-o", tmp_path / "a.qpack")
        assert_fails(done, 2, "decides bits by sensitivity", "--base")


@pytest.mark.parametrize(
    "options", [("--allocator", "exact"), ("--no-vasmp",), ("--vatmp",), ("--segments", 2)]
)
def test_options_of_the_papers_allocation_choose_the_papers_recipe(setup, tmp_path, options):
    name, (note,) = build(tmp_path / "a.qpack", setup.checkpoint, "--base", setup.base, *options)
    assert name == "q-dit4sr"
    assert options[0].replace("--no-", "--") in note


def test_a_fallback_goes_on_to_the_same_bytes(bare, tmp_path, monkeypatch):
    from planner.build import layers

    whole, output = tmp_path / "whole.qpack", tmp_path / "a.qpack"
    build(whole, bare)
    made = []
    quantize_layer = layers.quantize_layer

    def interrupted(name, *arguments):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(name)
        return quantize_layer(name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layers, "quantize_layer", interrupted)
        assert run_qplan("build", bare, *RANKS, "-o", output).exit_code == 130
    build(output, bare)
    assert open_pack(output).manifest == open_pack(whole).manifest


def test_a_decision_that_changed_is_another_build(setup, tmp_path, monkeypatch, too_dear):
    from planner.build import layers

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    command = ("build", setup.checkpoint, "--base", setup.base, *RANKS, "-o", tmp_path / "a.qpack")
    with monkeypatch.context() as patch:
        patch.setattr(layers, "quantize_layer", interrupted)
        assert run_qplan(*command).exit_code == 130
    monkeypatch.setattr(module, "MOST_OPERATIONS", MOST_OPERATIONS)
    done = run_qplan(*command)
    assert done.exit_code == 2
    assert "recipe" in next(line for line in done.stderr.splitlines() if "error: " in line)


def test_python_decides_as_the_command_does(bare, setup, tmp_path, caplog):
    ranks = {"global_rank": 2, "local_rank": 2}
    with caplog.at_level(logging.WARNING, logger="qdit4sr.api"):
        manifest = qdit4sr.build(bare, tmp_path / "a.qpack", **ranks)
        assert manifest.recipe.name == "q-dit4sr"
        assert "without VAE and prompts" in caplog.text
        caplog.clear()
        manifest = qdit4sr.build(setup.checkpoint, tmp_path / "b.qpack", base=setup.base, **ranks)
        assert manifest.recipe.name == "standard"
        assert caplog.text == ""


def test_estimates_are_of_standard_unless_options_say_otherwise(bare):
    for options, recipe in (
        ((), "standard"),
        (("--allocator", "exact"), "q-dit4sr"),
        (("--recipe", "rtn"), "rtn"),
    ):
        done = run_qplan("estimate", bare, *options, "--json")
        assert json.loads(done.stdout)["settings"]["recipe"] == recipe


def test_what_a_user_asks_for_goes_first():
    assert asked_recipe(None, {"seed", "keep", "global_rank"}) is None
    assert asked_recipe("rtn", {"budget", "allocator"}).name == "rtn"
    assert asked_recipe(None, {"sensitivity", "allocator"}).name == "standard"
    assert asked_recipe(None, {"calibration"}).name == "q-dit4sr"


def test_the_full_network_is_probed_unasked_on_a_gpu_alone(setup):
    base = find_base_model(open_checkpoint(setup.checkpoint), setup.base)
    full = preset_architecture("dit4sr", None)
    forty = base.sampling.model_copy(update={"steps": 40, "min_side_px": 64})
    prompts = {"positive.embeds": torch.zeros(333, 4096)}
    base = replace(base, sampling=forty, prompts=prompts)
    assert full.family is FAMILY
    probe = ProbeSettings(crop_px=16)  # the tiny autoencoder's pixels are the latent's
    assert default_recipe(full, base, probe, CPU).name == "q-dit4sr"
    assert default_recipe(full, base, probe, GPU).name == "standard"
