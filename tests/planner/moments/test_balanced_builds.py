"""Builds that smooth ahead of the rotation by second moments, from a checkpoint to a pack."""

from dataclasses import replace

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.codec.layer_parts import expected_parts
from artifacts.pack.reader import verify_pack
from planner.build.base_model import find_base_model
from planner.moments import settle
from planner.moments.gather import gather_moments, moment_owners
from planner.moments.settle import settle_moments
from planner.probe.run import ProbeSettings
from planner.recipes import recipe_settings
from planner.target import parse_target
from planner.weights.balance import balancing_vector
from schemas.errors import UsageError
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

CPU = torch.device("cpu")
BALANCED = ("--smoothing", "balance")
QUAROT = ("--recipe", "quarot", *BALANCED)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("balanced"))


def build(setup, out, *options):
    done = run_qplan("build", setup.checkpoint, "--base", setup.base, "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    return verify_pack(out)


@pytest.fixture(scope="module")
def packs(setup, tmp_path_factory):
    """Every layer at 4 bits without factors, with and without."""
    folder = tmp_path_factory.mktemp("packs")
    return {
        smoothing: build(
            setup, folder / f"{smoothing}.qpack", "--recipe", "quarot", "--smoothing", smoothing
        )
        for smoothing in ("none", "balance")
    }


def test_every_layer_is_divided_by_what_its_input_says(setup, packs, tmp_path):
    checkpoint = open_checkpoint(setup.checkpoint)
    settings = recipe_settings("quarot", parse_target("W4A4"), smoothing="balance")
    base = find_base_model(checkpoint, setup.base)
    moments = gather_moments(
        checkpoint,
        settings,
        base,
        ProbeSettings(),
        None,
        tmp_path / "m",
        device=CPU,
        dtype=torch.float32,
    )
    pack = packs["balance"]
    assert pack.manifest.recipe.settings["smoothing"] == "balance"
    assert pack.manifest.rotation.enabled
    owners = moment_owners(checkpoint, settings)
    assert len(set(owners.values())) < len(owners)
    for name in pack.layer_names:
        assert pack.manifest.layers[name].smoothing
        layer = pack.layer(name)
        assert torch.equal(layer.smoothing, balancing_vector(moments.of(name).diagonal()))
        assert torch.equal(layer.smoothing, pack.layer(owners[name]).smoothing)
    assert not any(record.smoothing for record in packs["none"].manifest.layers.values())


def test_a_pack_by_sensitivity_is_no_larger(setup, tmp_path):
    options = ("--recipe", "standard", "--global-rank", 2, "--local-rank", 0)
    plain = build(setup, tmp_path / "plain.qpack", *options)
    smoothed = build(setup, tmp_path / "smoothed.qpack", *options, *BALANCED)
    records = {pack: list(pack.manifest.layers.values()) for pack in (plain, smoothed)}
    chosen = [record for record in records[smoothed] if record.smoothing]
    assert chosen
    assert not any(record.smoothing for record in records[plain])

    def stored(pack, *parts):
        found = [expected_parts(record, has_bias=False) for record in records[pack]]
        return sum(spec.nbytes for one in found for part, spec in one.items() if part in parts)

    vectors = stored(smoothed, "smoothing")
    assert vectors == sum(4 * record.in_features for record in chosen)
    # Neither can spend all that it may: less than a bit of the largest layer is left.
    left = max(record.in_features * record.out_features for record in records[plain]) // 8
    assert stored(smoothed, "codes") + vectors < stored(plain, "codes") + left
    assert stored(smoothed, "codes") + vectors > stored(plain, "codes") - left
    for pack in (plain, smoothed):
        assert 3.5 < pack.manifest.reached.weight_bits <= 4


def test_layers_of_another_grid_keep_their_vector(setup, packs, tmp_path):
    new = tmp_path / "new.qpack"
    pack = packs["balance"]
    words = ("--set", "to_q=W6", "--checkpoint", setup.checkpoint, "-o", new)
    done = run_qplan("regrid", pack.path, *words)
    assert done.exit_code == 0, done.stderr
    found = verify_pack(new)
    changed = [n for n, r in found.manifest.layers.items() if r.weight_bits == 6]
    assert changed
    for name in changed:
        assert torch.equal(found.layer(name).smoothing, pack.layer(name).smoothing)
        assert found.manifest.layers[name].error_db > pack.manifest.layers[name].error_db + 8


def test_there_must_be_something_to_run(setup, tmp_path):
    bare = setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    out = tmp_path / "x.qpack"
    assert_fails(run_qplan("build", bare, *QUAROT, "-o", out), 2, "smoothing", "--base")
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_dear_is_left_unless_asked_for(setup, monkeypatch):
    checkpoint = open_checkpoint(setup.checkpoint)
    base = find_base_model(checkpoint, setup.base)
    both = recipe_settings(
        "quarot", parse_target("W4A4"), smoothing="balance", weight_rounding="gptq"
    )

    def settled(settings, parts, *, asked):
        return settle_moments(settings, checkpoint, parts, ProbeSettings(), CPU, asked=asked)

    assert settled(both, base, asked=False) == (both, [])
    monkeypatch.setattr(settle, "MOST_OPERATIONS", {"cpu": 1.0})
    assert settled(both, base, asked=True) == (both, [])
    found, (note,) = settled(both, base, asked=False)
    assert (found.smoothing, found.weight_rounding) == ("none", "nearest")
    assert "weights rounded to nearest, layers not smoothed" in note

    alone = replace(both, weight_rounding="nearest")
    found, (note,) = settled(alone, base, asked=False)
    assert found == replace(alone, smoothing="none")
    assert "--smoothing balance insists" in note
    found, (note,) = settled(alone, replace(base, folder=None), asked=False)
    assert found.smoothing == "none"
    assert note.endswith("layers not smoothed")
    with pytest.raises(UsageError, match="smoothing runs the network") as error:
        settled(alone, replace(base, folder=None), asked=True)
    assert "--smoothing none" in error.value.hint
