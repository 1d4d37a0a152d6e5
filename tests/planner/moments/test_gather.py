"""Second moments of layers' inputs, gathered from a running network, and builds that go by them."""

from dataclasses import replace
from math import inf

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.family import preset_architecture
from artifacts.pack.reader import open_pack
from planner.build.base_model import find_base_model
from planner.build.network_probe import active_linears, shared_inputs
from planner.build.work_folder import work_folder
from planner.moments import gather, pictures, settle
from planner.moments.gather import gather_moments, group_layers
from planner.moments.settle import asks_for_moments, settle_moments
from planner.moments.watch import InputMoments
from planner.probe.kept_pictures import kept_folder
from planner.probe.run import ProbeSettings
from planner.recipes import recipe_settings
from planner.target import parse_target
from schemas.errors import UsageError
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

CPU = torch.device("cpu")
GPTQ = ("--recipe", "quarot", "--weight-rounding", "gptq")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("moments"))


def gathered(setup, keep, sensitivity=None, **probe):
    checkpoint = open_checkpoint(setup.checkpoint)
    settings = recipe_settings("quarot", parse_target("W4A4"), weight_rounding="gptq")
    base = find_base_model(checkpoint, setup.base)
    return gather_moments(
        checkpoint,
        settings,
        base,
        ProbeSettings(**probe),
        sensitivity,
        keep,
        device=CPU,
        dtype=torch.float32,
    )


def test_sums_count_every_token_and_weigh_every_step():
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 2))
    inputs = torch.randn(3, 2, 7, 6, generator=torch.Generator().manual_seed(0))
    watch = InputMoments(network, {"0": [0.5, 2.0, 0.0], "1": [1.0, 1.0, 1.0]})
    with watch:
        for x in inputs:
            watch.next_step()
            network(x)
    network(inputs[0])  # not watched any more
    rows = inputs.flatten(1, 2)
    expected = 0.5 * rows[0].mT @ rows[0] + 2 * rows[1].mT @ rows[1]
    torch.testing.assert_close(watch.sums["0"], expected)
    fed = network[0](rows).flatten(0, 1)
    torch.testing.assert_close(watch.sums["1"], fed.mT @ fed)


def test_layers_of_one_input_share_a_moment():
    architecture = preset_architecture("dit4sr", None)
    layers = active_linears(architecture)
    owners = shared_inputs(architecture, layers)
    assert list(owners) == layers
    block = "transformer_blocks.3"
    assert owners[f"{block}.attn.to_v"] == f"{block}.attn.to_q"
    assert owners[f"{block}.attn.add_v_proj"] == f"{block}.attn.add_q_proj"
    assert owners[f"{block}.ff.net.2"] == f"{block}.ff.net.2"
    for layer, owner in owners.items():
        shapes = architecture.quantizable
        assert shapes[layer].in_features == shapes[owner].in_features
        assert layers.index(owner) <= layers.index(layer)


def test_groups_keep_to_the_bound():
    architecture = preset_architecture("dit4sr", None)
    owners = shared_inputs(architecture, active_linears(architecture))
    groups = group_layers(architecture, owners)
    assert [name for group in groups for name in group] == list(dict.fromkeys(owners.values()))
    sizes = [
        sum(4 * architecture.quantizable[name].in_features ** 2 for name in group)
        for group in groups
    ]
    assert len(groups) == 3
    assert max(sizes) <= gather.MOST_BYTES


def test_groups_and_interruptions_do_not_show(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PER_GENERATED", 1)
    whole = gathered(setup, tmp_path / "whole")
    ran = []
    picture_moments = gather._picture_moments

    def interrupted(*arguments):
        ran.append(arguments[-1])
        if len(ran) == 4:
            raise KeyboardInterrupt
        return picture_moments(*arguments)

    monkeypatch.setattr(gather, "MOST_BYTES", 4 * 3 * 64**2)
    monkeypatch.setattr(gather, "_picture_moments", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"1 of \d+ groups of layers are kept"):
        gathered(setup, tmp_path / "parts")
    parts = gathered(setup, tmp_path / "parts")
    groups = len(list((tmp_path / "parts").iterdir()))
    assert groups > 2
    assert ran == [0, 1] + [0, 1, 1] + [0, 1] * (groups - 2)
    assert parts.digest == whole.digest
    for layer in whole.owners:
        assert torch.equal(whole.of(layer), parts.of(layer))
    # Of other pictures: nothing of it is taken over.
    gathered(setup, tmp_path / "parts", seed=5)
    assert ran[-2:] == [5, 6]


def build(setup, out, *options):
    return run_qplan("build", setup.checkpoint, "--base", setup.base, "-o", out, *options)


def test_a_build_rounds_by_what_layers_are_fed(setup, tmp_path):
    from artifacts.pack.reader import verify_pack

    packs = {}
    for rounding in ("nearest", "gptq"):
        out = tmp_path / f"{rounding}.qpack"
        done = build(setup, out, "--recipe", "quarot", "--weight-rounding", rounding)
        assert done.exit_code == 0, done.stderr
        packs[rounding] = verify_pack(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gptq.qpack", "nearest.qpack"]
    assert packs["gptq"].manifest.recipe.settings["weight_rounding"] == "gptq"
    assert "weight_rounding" not in packs["nearest"].manifest.recipe.settings

    moments = gathered(setup, tmp_path / "moments")
    source = open_checkpoint(setup.checkpoint)
    error = {}
    for rounding, pack in packs.items():
        error[rounding] = 0.0
        for name in pack.layer_names:
            off = pack.layer(name).decode() - source.tensor(f"{name}.weight").double()
            moment = moments.of(name).double()
            error[rounding] += float(((off @ moment) * off).sum() / moment.trace())
    assert error["gptq"] < 0.8 * error["nearest"]


@pytest.mark.parametrize(
    "options",
    [
        GPTQ,
        ("--recipe", "standard", "--weight-rounding", "gptq"),
        ("--recipe", "quarot", "--smoothing", "balance"),
    ],
)
def test_an_interrupted_build_goes_on_to_the_same_bytes(setup, tmp_path, monkeypatch, options):
    whole, again = tmp_path / "whole.qpack", tmp_path / "again.qpack"
    done = build(setup, whole, *options)
    assert done.exit_code == 0, done.stderr
    from planner.build.work_folder import WorkFolder

    kept = []
    keep_layer = WorkFolder.keep_layer

    def interrupted(self, layer):
        kept.append(layer)
        if len(kept) == 3:
            raise KeyboardInterrupt
        return keep_layer(self, layer)

    monkeypatch.setattr(WorkFolder, "keep_layer", interrupted)
    assert build(setup, again, *options).exit_code == 130
    assert kept_folder(again).exists()
    assert work_folder(again).exists()
    done = build(setup, again, *options)
    assert done.exit_code == 0, done.stderr
    assert {p.name: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == {
        p.name: p.read_bytes() for p in again.rglob("*") if p.is_file()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.qpack", "whole.qpack"]


def test_with_a_calibration(setup, tmp_path):
    from artifacts.pack.reader import verify_pack

    out = tmp_path / "a.qpack"
    done = build(
        setup, out, "--recipe", "q-dit4sr", "--weight-rounding", "gptq", "--calib", setup.images
    )
    assert done.exit_code == 0, done.stderr
    manifest = verify_pack(out).manifest
    assert manifest.recipe.settings["weight_rounding"] == "gptq"
    assert manifest.calibration is not None
    assert [path.name for path in tmp_path.iterdir()] == ["a.qpack"]


def test_there_must_be_something_to_run(setup, tmp_path):
    bare = setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    out = tmp_path / "x.qpack"
    assert_fails(run_qplan("build", bare, *GPTQ, "-o", out), 2, "GPTQ", "--base")
    wrong = ("--recipe", "quarot", "--weight-rounding", "up")
    assert_fails(run_qplan("build", bare, *wrong, "-o", out), 2, "no rounding of weights 'up'")


@pytest.mark.parametrize(
    "options",
    [GPTQ, ("--recipe", "q-dit4sr", "--global-rank", "2", "--factor-fit", "outputs")],
)
def test_another_grid_rounds_to_nearest_and_says_so(setup, tmp_path, options):
    pack, new = tmp_path / "a.qpack", tmp_path / "b.qpack"
    done = build(setup, pack, *options)
    assert done.exit_code == 0, done.stderr
    done = run_qplan(
        "regrid", pack, "--set", "attn=W5", "--checkpoint", setup.checkpoint, "-o", new
    )
    assert done.exit_code == 0, done.stderr
    assert "rounded to nearest" in done.stderr


def test_what_is_too_dear_is_done_only_when_asked_for(setup, monkeypatch):
    checkpoint = open_checkpoint(setup.checkpoint)
    base = find_base_model(checkpoint, setup.base)
    asked_for = recipe_settings("quarot", parse_target("W4A4"), weight_rounding="gptq")

    def settled(parts, *, asked):
        found, notes = settle_moments(
            asked_for, checkpoint, parts, ProbeSettings(), CPU, asked=asked
        )
        return found.weight_rounding, notes

    assert settled(base, asked=False) == ("gptq", [])
    monkeypatch.setattr(settle, "MOST_OPERATIONS", {"cpu": 1.0})
    assert settled(base, asked=True) == ("gptq", [])
    rounding, (note,) = settled(base, asked=False)
    assert rounding == "nearest"
    assert "TFLOP" in note
    assert "--weight-rounding gptq insists" in note

    bare = replace(base, folder=None)
    rounding, (note,) = settled(bare, asked=False)
    assert rounding == "nearest"
    assert "rounded to nearest" in note
    with pytest.raises(UsageError, match="needs VAE and prompts"):
        settled(bare, asked=True)


def test_factors_are_fitted_only_where_their_moments_may_be_gathered(setup, monkeypatch):
    checkpoint = open_checkpoint(setup.checkpoint)
    base = find_base_model(checkpoint, setup.base)
    fitted = recipe_settings("standard", parse_target("W4A4"), weight_rounding="nearest")
    assert (fitted.factor_fit, fitted.uses_moments) == ("outputs", True)

    def settled(parts):
        return settle_moments(fitted, checkpoint, parts, ProbeSettings(), CPU, asked=False)

    assert settled(base) == (fitted, [])
    for parts, most in ((base, 1.0), (replace(base, folder=None), inf)):
        monkeypatch.setattr(settle, "MOST_OPERATIONS", {"cpu": most})
        found, (note,) = settled(parts)
        assert (found.factor_fit, found.uses_moments) == ("weight", False)
        assert "factors fitted to weights" in note
        assert ("--factor-fit outputs insists" in note) == (most == 1.0)


@pytest.mark.parametrize(
    ("chosen", "asks"),
    [
        ({}, False),
        ({"weight_rounding": None, "smoothing": None}, False),
        ({"weight_rounding": "nearest", "factor_fit": "weight", "smoothing": "none"}, False),
        ({"smoothing": "search"}, False),
        ({"weight_rounding": "gptq"}, True),
        ({"factor_fit": "outputs"}, True),
        ({"smoothing": "balance"}, True),
    ],
)
def test_who_declines_moments_does_not_ask_for_them(chosen, asks):
    assert asks_for_moments(chosen) == asks


def test_a_build_whose_factors_are_fitted(setup, tmp_path):
    ranks = ("--global-rank", "4", "--local-rank", "0")
    packs = {}
    for fit in ("weight", "outputs"):
        out = tmp_path / f"{fit}.qpack"
        options = ("--recipe", "q-dit4sr", "--weight-rounding", "gptq", "--factor-fit", fit)
        done = build(setup, out, *options, *ranks)
        assert done.exit_code == 0, done.stderr
        packs[fit] = open_pack(out)
    assert packs["outputs"].manifest.recipe.settings["factor_fit"] == "outputs"
    assert "factor_fit" not in packs["weight"].manifest.recipe.settings
    sizes = [pack.manifest.transformer_bytes.pack for pack in packs.values()]
    assert sizes[0] == sizes[1]
    name = packs["weight"].layer_names[0]
    assert not torch.equal(*(pack.layer(name).global_up for pack in packs.values()))


def test_a_calibration_of_rounded_weights(setup, tmp_path):
    file = tmp_path / "calibration.json"
    done = run_qplan(
        "calibrate",
        setup.checkpoint,
        *("--base", setup.base, "--calib", setup.images, "-o", file, "--weight-rounding", "gptq"),
    )
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
