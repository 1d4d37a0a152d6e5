"""The estimate: every published figure as it is printed, and the user's own rows."""

import json
import re

import pytest
from rich.console import Console

from artifacts.codec.gaussian_quantizer import gaussian_level
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears
from planner.allocate.exact import allocate_exact
from planner.allocate.vasmp import LayerStatistics
from planner.estimate.accounting import layer_macs
from planner.estimate.distortion import relative_error
from planner.estimate.estimate import estimate as predict
from planner.estimate.result import ImageSettings
from planner.estimate.tables import render
from planner.moments.pictures import PER_GENERATED
from planner.probe.run import COTANGENTS, PICTURES
from planner.recipes import RECIPES, recipe_settings
from planner.settings import BuildSettings
from planner.target import Target
from schemas.errors import UsageError
from tests.architectures import dit4sr

SMALL = TransformerConfig(
    num_layers=6,
    dual_attention_layers=(0, 1, 2),
    num_attention_heads=3,
    attention_head_dim=64,
    caption_projection_dim=192,
)


def estimate(config, target, *, variances=None, image=None, **fields):
    settings = BuildSettings(target, **fields)
    architecture = dit4sr(config, settings.variant or "q")
    return predict(architecture, settings, image, variances=variances)


@pytest.fixture(scope="module")
def published():
    return estimate(TransformerConfig(), Target(4, 4))


def printed(result, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(render(result))
    return [line.rstrip() for line in capture.get().splitlines()]


def numbers_of(lines, label):
    """The numbers of each line that starts with ``label``."""
    return [
        re.findall(r"[\d,.]+", line[len(label) :])
        for line in map(str.strip, lines)
        if line.startswith(label)
    ]


def test_the_papers_figures_are_printed(published):
    """As the paper has them, but for rank 16's FLOPs: 209.90455, where it prints 209.91."""
    lines = printed(published)
    assert numbers_of(lines, "full precision") == [["2,716.81", "170,476", "170,476"]]
    paper, true = numbers_of(lines, "no factors")
    assert paper[:2] == ["359.29", "2,664"]
    assert true == ["2,664", "64", "14,373", "15", "3,996", "43", "15,705", "14"]
    ladder = {
        "r_L 4 ": ("454.78", "207.37"),
        "r_L 8 ": ("465.39", "208.22"),
        "r_L 16 ": ("486.62", "209.90"),
        "r_L 32 ": ("529.06", "213.28"),
    }
    for label, (parameters, flops) in ladder.items():
        paper, true = numbers_of(lines, label)
        assert (paper[0], paper[-1]) == (parameters, flops)
    paper, true = numbers_of(lines, "r_L 8 ")
    assert paper[1] == "2,776"
    assert true == ["4,464", "38", "16,174", "13", "5,796", "29", "17,506", "12"]
    assert "2,716.81 M parameters, of which 585 block linears hold 2,694.32 M" in lines


def test_which_figures_are_the_papers_and_which_are_true_is_said(published):
    text = "\n".join(printed(published))
    ladder, true = text.index("Paper convention"), text.index("True bit operations")
    assert ladder < text.index("454.78") < true < text.index("4,464")


def test_the_users_target_gets_its_own_rows(published):
    lines = printed(published)
    assert numbers_of(lines, "operations of linears") == [["2,776", "4,464"]]
    assert numbers_of(lines, "linears fewer by") == [["61", "38"]]
    assert numbers_of(lines, "operations of attention") == [["11,710"]]
    assert numbers_of(lines, "operations in total") == [["16,174"]]
    assert numbers_of(lines, "total fewer by") == [["13"]]
    assert "linears 170,476 G, attention 46,838 G, total 217,314 G." in lines
    assert "Multiply-accumulates of a pass: linears 2,130.9 G, attention 585.5 G." in lines
    assert numbers_of(lines, "bf16 checkpoint with position table") == [["5,886.61"]]
    (size,) = numbers_of(lines, "size on disk")
    assert size == ["465.39", f"{published.pack.total / 1e6:,.2f}"]
    assert "Predicted bits and distortion: 495 of 585 block linears are active" in lines


@pytest.mark.parametrize("target", [Target(4, 4), Target(3.25, 16)])
def test_nothing_breaks_in_a_pipe(target):
    result = estimate(SMALL, target)
    assert printed(result, width=80) == printed(result, width=200)
    assert "\x1b" not in "".join(printed(result))


def test_json_is_plain_and_complete(published):
    values = json.loads(json.dumps(published.to_json(), allow_nan=False))
    assert values["target"] == {"weight_bits": 4, "activation_bits": 4}
    assert values["size"]["parameters"] == 2_716_814_144
    assert values["paper_ladder"]["W4A6 r_L=16"]["rank"] == 48
    assert values["pack"]["total"] == published.pack.total
    assert len(values["layers"]) == 495
    own, attention = values["own"], values["attention"]
    assert own["true_operations"] == published.own.true_operations
    assert own["total_operations"] == own["true_operations"] + own["attention_operations"]
    assert own["total_reduction"] == pytest.approx(13.436, abs=1e-3)
    assert attention["scores"] + attention["values"] == 585_479_626_752
    assert values["full_precision"]["total_reduction"] == 1


def test_pack_bytes_of_the_published_network(published):
    # 495 active layers hold 2,481.98 M weights: half a byte each.
    weights = sum(layer.parameters for layer in published.layers.values())
    assert published.pack.codes == weights // 2
    assert published.checkpoint.parameters / published.pack.total == pytest.approx(3.67, abs=0.005)


def test_another_configuration_and_ranks():
    ranks = {"global_rank": 16, "local_rank": 0}
    image = ImageSettings(steps=10, resolution_px=256)
    result = estimate(SMALL, Target(3, 5), image=image, variant="r1", **ranks)
    assert result.tokens["image"] == 256
    assert result.own.rank == 16
    assert result.pack.local_factors == 0
    assert {layer.weight_bits for layer in result.layers.values()} == {3}
    assert len(result.layers) > len(estimate(SMALL, Target(3, 5)).layers)  # r1 has control keys
    assert result.own.true_operations > result.own.paper_operations
    assert result.own.attention_operations < estimate(SMALL, Target(3, 5)).own.attention_operations


def test_variances_steer_the_bits():
    wide = "transformer_blocks.3.attn.to_q"
    narrow = "transformer_blocks.3.attn.to_v"
    variances = dict.fromkeys(block_linears(SMALL), 1e-3) | {wide: 1e-1, narrow: 1e-5}
    plain = estimate(SMALL, Target(4, 4))
    steered = estimate(SMALL, Target(4, 4), variances=variances)
    assert steered.layers[wide].weight_bits > 4 > steered.layers[narrow].weight_bits
    assert steered.distortion.weights_db > plain.distortion.weights_db
    assert steered.distortion.from_weights
    assert not plain.distortion.from_weights


def test_a_fractional_budget_is_met_by_mixing(published):
    result = estimate(SMALL, Target(3.5, 4))
    assert {layer.weight_bits for layer in result.layers.values()} == {3, 4}
    weights = sum(layer.parameters for layer in result.layers.values())
    stored = sum(layer.parameters * layer.weight_bits for layer in result.layers.values())
    assert 3.49 * weights < stored <= 3.5 * weights


def test_distortion_by_the_gaussian_model(published):
    # Of W4A4: kappa(4) = 0.01154288 for either operand.
    assert published.distortion.weights_db == pytest.approx(19.377, abs=1e-3)
    assert published.distortion.activations_db == pytest.approx(19.377, abs=1e-3)
    assert published.distortion.layer_output_db == pytest.approx(16.342, abs=1e-3)
    unquantized = estimate(SMALL, Target(4, 16)).distortion
    assert unquantized.activations_db is None
    assert unquantized.layer_output_db == unquantized.weights_db


def test_zero_weights_have_no_error_to_report():
    result = estimate(SMALL, Target(4, 16), variances=dict.fromkeys(block_linears(SMALL), 0.0))
    assert result.distortion.weights_db is None
    assert result.distortion.layer_output_db is None
    assert any("Weights without error" in line for line in printed(result))


def test_the_error_of_fractional_bits_lies_on_the_chord():
    three, four = gaussian_level(3).mse, gaussian_level(4).mse
    assert relative_error(3) == three
    assert relative_error(3.25) == pytest.approx(0.75 * three + 0.25 * four)
    assert relative_error(8) == gaussian_level(8).mse
    assert relative_error(16) == 0


def test_the_settings_in_the_json_are_the_builds(published):
    """What always matters, and beyond that only what differs from the paper's recipe."""
    always = {
        "recipe": "q-dit4sr",
        "global_rank": 32,
        "local_rank": 8,
        "minimum_bits": 2,
        "maximum_bits": 8,
        "rotation_signs": True,
        "steps": 40,
        "resolution_px": 512,
        "text_tokens": 333,
    }
    assert published.to_json()["settings"] == always
    assert "kept" not in published.to_json()
    settings = recipe_settings("quarot", Target(4, 4), keep=("to_v$",))
    quarot = predict(dit4sr(SMALL), settings).to_json()
    assert quarot["settings"] == always | {
        "global_rank": 0,
        "local_rank": 0,
        "recipe": "quarot",
        "weight_allocation": "uniform",
        "timestep_allocation": "uniform",
        "keep": ["to_v$"],
    }
    assert all(name.endswith("to_v") for name in quarot["kept"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_estimated(recipe):
    result = predict(dit4sr(SMALL), recipe_settings(recipe, Target(4, 4)))
    json.dumps(result.to_json(), allow_nan=False)
    text = "\n".join(printed(result))
    assert printed(result, width=80) == printed(result, width=200)
    assert f"recipe {recipe}, " in text
    assert (f"{recipe}, no factors" in text) == (result.own.rank == 0)
    assert ("absmax scales err more" in text) == (recipe in ("rtn", "svdquant"))
    assert ("smoothing" in text) == (recipe == "svdquant")


def test_a_recipe_without_factors_and_with_uniform_bits():
    variances = {name: 2.0 ** (i % 9) for i, name in enumerate(block_linears(SMALL))}
    quarot = predict(dit4sr(SMALL), recipe_settings("quarot", Target(4, 4)), variances=variances)
    assert {layer.weight_bits for layer in quarot.layers.values()} == {4}
    assert quarot.pack.global_factors == quarot.pack.local_factors == 0
    assert quarot.own.true_operations == quarot.own.paper_operations
    assert any("every layer has the target's weight bits" in line for line in printed(quarot))
    mixed = predict(dit4sr(SMALL), recipe_settings("q-dit4sr", Target(4, 4)), variances=variances)
    assert len({layer.weight_bits for layer in mixed.layers.values()}) > 2
    residual = recipe_settings("q-dit4sr-residual", Target(4, 4))
    lines = printed(predict(dit4sr(SMALL), residual, variances=variances))
    assert any("what the factors leave" in line for line in lines)


def test_the_allocator_is_the_one_asked_for():
    variances = {name: 2.0 ** (i % 9) for i, name in enumerate(block_linears(SMALL))}
    greedy, exact = (
        estimate(SMALL, Target(2.7, 4), variances=variances, allocator=allocator)
        for allocator in ("greedy", "exact")
    )
    statistics = [
        LayerStatistics(name, layer.parameters, variances[name])
        for name, layer in exact.layers.items()
    ]
    best = allocate_exact(statistics, 2.7, minimum_bits=2, maximum_bits=8)
    assert {name: layer.weight_bits for name, layer in exact.layers.items()} == best
    assert exact.layers != greedy.layers


def test_kept_layers_are_stored_and_run_unquantized():
    plain = estimate(SMALL, Target(4, 4))
    result = estimate(SMALL, Target(4, 4), keep=(r"\.ff\.",))
    assert result.kept
    assert set(result.layers) | set(result.kept) == set(plain.layers)
    assert not set(result.layers) & set(result.kept)
    weights = sum(plain.layers[name].parameters for name in result.kept)
    assert result.pack.unquantized == plain.pack.unquantized + 2 * weights
    assert result.pack.codes == plain.pack.codes - weights // 2
    assert result.own.paper_parameters > plain.own.paper_parameters
    assert result.own.true_operations > plain.own.true_operations
    assert result.full_precision == plain.full_precision
    assert result.own.paper_reduction == pytest.approx(
        result.full_precision.paper_operations / result.own.paper_operations
    )
    said = f"{len(result.kept)} of them stay in 16 bits"
    assert any(said in line for line in printed(result))


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="0 steps"):
        ImageSettings(steps=0)
    with pytest.raises(UsageError, match="px"):
        estimate(SMALL, Target(4, 4), image=ImageSettings(resolution_px=100))
    with pytest.raises(UsageError, match="weight bits"):
        estimate(SMALL, Target(2, 4), minimum_bits=3)
    with pytest.raises(UsageError, match="nothing is left to quantize"):
        estimate(SMALL, Target(4, 4), keep=("",))
    with pytest.raises(UsageError, match="finds none"):
        estimate(SMALL, Target(4, 4), keep=("no such layer",))
    with pytest.raises(ValueError, match="no variance for the quantized layer"):
        estimate(SMALL, Target(4, 4), variances={})


def test_mean_bits_over_work_are_weighted_by_multiply_accumulates():
    variances = {name: 2.0 ** (i % 9) for i, name in enumerate(block_linears(SMALL))}
    result = predict(
        dit4sr(SMALL), recipe_settings("q-dit4sr", Target(3.5, 4)), variances=variances
    )
    macs = layer_macs(dit4sr(SMALL), result.tokens)
    work = sum(macs[name] for name in result.layers)
    expected = sum(layer.weight_bits * macs[name] for name, layer in result.layers.items()) / work
    mean = result.mean_bits
    assert mean.weights == pytest.approx(3.5, abs=1e-3)
    assert mean.weights_by_work == pytest.approx(expected)
    assert mean.activations_by_work == 4
    assert mean.bit_operations == pytest.approx(4 * expected)
    assert result.to_json()["mean_bits"]["bit_operations"] == mean.bit_operations
    assert f"{mean.bit_operations:.2f} bit operations" in " ".join(printed(result))


def test_what_a_probe_decides_is_not_foretold():
    result = predict(dit4sr(SMALL), recipe_settings("standard", Target(4, 4)))
    assert result.mean_bits.bit_operations is None
    assert "decides activations" in " ".join(printed(result))


def test_what_a_build_runs_first_is_foretold():
    """As the build itself announces it, for two guidance branches."""
    config = TransformerConfig()
    assert estimate(config, Target(4, 4), weight_allocation="uniform",
                    timestep_allocation="uniform").runs == {}  # fmt: skip
    calibrated = estimate(config, Target(4, 4)).runs
    standard = predict(dit4sr(config, "q"), recipe_settings("standard", Target(4, 4)))
    assert list(calibrated) == ["calibration"]
    assert list(standard.runs) == ["probe", "second moments"]
    probe, moments = standard.runs.values()
    # 40 steps of two branches; a pass is that of the network, two operations to a product.
    one = 2 * 2 * 40 * standard.work.dense
    assert (probe.pictures, probe.passes) == (PICTURES, 3 + 2 * COTANGENTS)
    assert probe.operations == pytest.approx(PICTURES * probe.passes * one)
    assert moments.pictures == PER_GENERATED * PICTURES
    assert moments.operations == pytest.approx(moments.pictures * moments.passes * one)
    assert calibrated["calibration"].operations == pytest.approx(32 * one)
    # Of DiT4SR's moments 4 GiB fit at once, 10 GB are needed: three rounds, and one for the sums.
    assert moments.passes == 4
    assert numbers_of(printed(standard), "second moments") == [["8", "4", "10,910.5"]]
    assert "runs" in standard.to_json()
    short = estimate(config, Target(4, 4), image=ImageSettings(text_tokens=77))
    assert short.runs["calibration"].operations == pytest.approx(32 * 2 * 2 * 40 * short.work.dense)
