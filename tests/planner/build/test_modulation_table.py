"""Packs with a table of modulations: what is in them, and that they run like unquantized ones."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.family import NO_MODULATIONS
from artifacts.files.safetensors_io import read_header
from artifacts.pack.file_names import MODULATION, TRANSFORMER
from artifacts.pack.reader import open_pack, verify_pack
from benchmarks.quality.storage import stored_bits_of_pack
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.build.calibrated_build import CalibrationRun, build_calibrated
from planner.build.modulation import FELL_BACK, TOO_LARGE, in_16_bits, settle_modulation
from planner.build.network_probe import check_network, find_active_tensors
from planner.recipes import recipe_settings
from planner.regrid.regrid import regrid
from planner.target import parse_target
from runtime.load import network_from_checkpoint, network_from_pack
from runtime.network.modulation import TabledLayer
from schemas.errors import UsageError
from tests.architectures import dit4sr
from tests.artifacts.make_pack import TINY
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

CPU = torch.device("cpu")
LAYERS = dit4sr(TINY).modulations.layers


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def parts(setup):
    checkpoint = open_checkpoint(setup.checkpoint)
    return checkpoint, find_base_model(checkpoint, setup.base)


@pytest.fixture(scope="module")
def built(parts, tmp_path_factory):
    """Packs by modulation and variant, made when first asked for."""
    folder, found = tmp_path_factory.mktemp("packs"), {}

    def pack(modulation, variant="q", target="W4A8"):
        key = (modulation, variant, target)
        if key not in found:
            path = folder / f"{len(found)}.qpack"
            settings = recipe_settings(
                "q-dit4sr",
                parse_target(target),
                modulation=modulation,
                variant=variant,
                global_rank=2,
                local_rank=2,
            )
            build(parts[0], path, settings, parts[1])
            found[key] = verify_pack(path)
        return found[key]

    return pack


def network(pack, **options):
    return network_from_pack(pack, device=CPU, dtype=torch.float32, backend="reference", **options)


def run(net, pack, steps, pooled, *, quantized=True):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, len(steps), TINY.in_channels, 8, 8, generator=generator)
    text = torch.randn(len(steps), 3, TINY.joint_attention_dim, generator=generator)
    inputs = (*latents, text, pooled, torch.tensor(steps))
    with torch.inference_mode():
        return net(*inputs, pack.bit_grid.at_step(0) if quantized else None)


def own_inputs(pack):
    """Every step of the pack, with either prompt."""
    steps = pack.manifest.modulation.timesteps
    pooled = pack.pooled_prompts().float()
    return [*steps, *steps], pooled.repeat_interleave(len(steps), 0)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("variant", ["q", "r1"])
def test_it_runs_as_with_unquantized_modulations(built, parts, variant):
    """Activations unquantized: their codes would hide small differences, or make them larger."""
    pack = built("both", variant)
    inputs = own_inputs(pack)
    exact = network(pack, look_up=False)
    source = network_from_checkpoint(parts[0], variant, device=CPU, dtype=torch.float32)
    for name in LAYERS:
        exact.set_submodule(name, source.get_submodule(name))
    expected = run(exact, pack, *inputs, quantized=False)
    found = run(network(pack), pack, *inputs, quantized=False)
    weights = run(network(pack, look_up=False), pack, *inputs, quantized=False)
    # Float16 errs by 2^-12 at most, a layer of 4 bits by a tenth; neither is all of the output.
    assert relative(found, expected) < 2e-5
    assert relative(weights, expected) > 50 * relative(found, expected)


@pytest.mark.parametrize("variant", ["q", "r1"])
def test_table_alone_gives_what_the_source_gives_beside_it(built, parts, variant):
    pack = built("table", variant)
    computed = network(pack, source=parts[0], look_up=False)
    found = run(network(pack), pack, *own_inputs(pack), quantized=False)
    assert relative(found, run(computed, pack, *own_inputs(pack), quantized=False)) < 2e-5


def test_rows_are_the_layers_results_rounded_once(built, parts):
    checkpoint, _ = parts
    pack = built("table")
    source = network_from_checkpoint(checkpoint, "q", device=CPU, dtype=torch.float32)
    record = pack.manifest.modulation
    steps, pooled = own_inputs(pack)
    read = source.modulation_input(torch.tensor(steps), pooled)
    for name in LAYERS:
        expected = source.get_submodule(name)(read).unflatten(0, (2, len(record.timesteps)))
        rows = pack.modulation_rows(name)
        assert rows.dtype == torch.float16
        # Half a unit in the last place, and what sums in another order differ by.
        torch.testing.assert_close(rows.float(), expected, rtol=2**-11, atol=1e-6)
        assert relative(rows.float(), expected) < 2**-11


def test_what_is_stored(built):
    plain, table, both = (built(m) for m in ("weights", "table", "both"))
    tabled = dit4sr(TINY).modulations
    names = {
        key: set(read_header(p.path / TRANSFORMER).tensors)
        for key, p in {"plain": plain, "table": table, "both": both}.items()
    }
    assert names["both"] == names["plain"]
    left_out = names["plain"] - names["table"]
    assert {n.rpartition(".")[0] for n in left_out} == {
        n.rpartition(".")[0] for n in tabled.tensors
    }
    assert set(read_header(table.path / MODULATION).tensors) == {f"{n}.table" for n in LAYERS}
    assert not set(tabled.layers) & set(table.manifest.layers)
    assert set(table.bit_grid.layers) == set(table.manifest.layers)
    versions = [
        (p.manifest.format_version, p.manifest.min_reader_version) for p in (plain, table, both)
    ]
    assert versions == [(1, 1), (2, 2), (2, 2)]
    assert not (plain.path / MODULATION).exists()
    assert "modulation" not in json.loads((plain.path / "manifest.json").read_text())
    assert plain.manifest.recipe.settings.keys() <= table.manifest.recipe.settings.keys()
    check_network(table.manifest)


def mean_of_codes(pack):
    sizes = {n: r.in_features * r.out_features for n, r in pack.manifest.layers.items()}
    spent = sum(size * pack.manifest.layers[n].weight_bits for n, size in sizes.items())
    return Fraction(spent, sum(sizes.values()))


def mean_with_table(pack, rank, factor_bits):
    """Of codes and of the rows on disk, by hand, less what the layers had beside their codes."""
    shapes = {n: s for n, s in dit4sr(TINY).quantizable.items() if n in LAYERS}
    codes = sum(r.in_features * r.out_features for r in pack.manifest.layers.values())
    tabled = sum(s.in_features * s.out_features for s in shapes.values())
    rows = sum(16 * pack.modulation_rows(n).numel() for n in shapes)
    factor_scale = 32 if factor_bits == 8 else 0
    beside = sum(
        32 * s.out_features
        + min(rank, *s) * (factor_bits * (s.in_features + s.out_features) + factor_scale)
        for s in shapes.values()
    )
    return (mean_of_codes(pack) * codes + max(0, rows - beside)) / (codes + tabled)


def test_vasmp_spends_the_target_on_codes_and_the_mean_reached_counts_the_table(built):
    pack = built("table", target="W3.5A8")
    assert 3.4 < mean_of_codes(pack) <= 3.5
    expected = float(mean_with_table(pack, 2, 16))
    assert pack.manifest.reached.weight_bits == pytest.approx(expected, abs=1e-6)
    both = built("both", target="W3.5A8")
    assert both.manifest.reached.weight_bits == pytest.approx(float(mean_of_codes(both)), 1e-6)


def test_bits_by_sensitivity_spend_what_the_table_saves(setup, parts, tmp_path):
    steps = ("--steps", "2")
    done = run_qplan(
        "build", setup.checkpoint, "--base", setup.base, "--recipe", "standard", *steps,
        "--global-rank", 2, "--local-rank", 2, "-o", tmp_path / "a.qpack",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    pack = verify_pack(tmp_path / "a.qpack")
    assert pack.manifest.modulation is not None
    assert mean_of_codes(pack) > 4
    mean = mean_with_table(pack, 2, 8)
    assert 3.9 < mean <= 4
    assert pack.manifest.reached.weight_bits == pytest.approx(float(mean), abs=1e-6)
    # No larger than a pack that stores the layers.
    options = {"factor_bits": 8, "global_rank": 2, "local_rank": 2}
    plain = tmp_path / "plain.qpack"
    build(parts[0], plain, recipe_settings("q-dit4sr", parse_target("W4A4"), **options), parts[1])
    assert stored_bits_of_pack(pack) <= stored_bits_of_pack(open_pack(plain))
    # Edited by its own grid, a pack says the same of itself.
    grid = pack.bit_grid
    again = regrid(pack, tmp_path / "b.qpack", grid)
    assert again.after.reached == pack.manifest.reached


def test_factors_larger_than_the_table_give_nothing_back(parts, tmp_path):
    settings = recipe_settings("q-dit4sr", parse_target("W4A8"), modulation="table", global_rank=32)
    build(parts[0], tmp_path / "a.qpack", settings, parts[1])
    pack = verify_pack(tmp_path / "a.qpack")
    mean = mean_with_table(pack, 32, 16)
    assert 0 < mean < mean_of_codes(pack)
    assert pack.manifest.reached.weight_bits == pytest.approx(float(mean), abs=1e-6)


def test_stored_bits_count_what_the_files_hold(built):
    for pack in (built("weights"), built("table"), built("both")):
        quantized = pack.manifest.layers
        weights = sum(r.in_features * r.out_features for r in quantized.values())
        tensors = read_header(pack.path / TRANSFORMER).tensors
        bits = sum(
            8 * spec.nbytes
            for name, spec in tensors.items()
            if name.rpartition(".")[0] in quantized and not name.endswith(".bias")
        )
        if pack.manifest.modulation is not None:
            shapes = {n: s for n, s in dit4sr(TINY).quantizable.items() if n in LAYERS}
            bits += sum(16 * pack.modulation_rows(n).numel() for n in shapes)
            if not pack.manifest.modulation.weights:
                weights += sum(s.in_features * s.out_features for s in shapes.values())
        assert stored_bits_of_pack(pack) == pytest.approx(bits / weights)


def test_a_table_that_outgrows_the_layers_is_not_made_unless_asked_for(parts):
    checkpoint, base = parts
    settings = recipe_settings("standard", parse_target("W4A4"))
    many = replace(base, sampling=base.sampling.model_copy(update={"steps": 50}))
    architecture = checkpoint.architecture("q")
    found, notes = settle_modulation(settings, architecture, many, asked=False)
    assert found.modulation == "weights"
    assert notes == [TOO_LARGE]
    assert settle_modulation(settings, architecture, many, asked=True) == (settings, [])


def test_every_tabled_tensor_is_read_without_a_table():
    for variant in ("q", "r1"):
        assert dit4sr(TINY, variant).modulations.tensors <= find_active_tensors(
            dit4sr(TINY, variant)
        )


def test_nothing_of_what_is_tabled_is_loaded(built):
    loaded = network(built("table"))
    tensors = dit4sr(TINY).modulations.tensors
    assert not tensors & {*dict(loaded.named_parameters()), *dict(loaded.named_buffers())}
    layers = [m for m in loaded.modules() if isinstance(m, TabledLayer)]
    assert len(layers) == len(LAYERS)
    assert all(m.layer is None for m in layers)
    assert all(m.table.dtype == torch.float16 for m in layers)


def test_the_source_gives_what_the_table_lacks(built, parts):
    pack = built("table")
    net = network(pack, source=parts[0])
    steps, pooled = own_inputs(pack)
    found = run(net, pack, steps, pooled)
    assert torch.equal(found, run(network(pack), pack, steps, pooled))
    other = [step - 1 for step in steps]
    assert bool(run(net, pack, other, pooled + 1).isfinite().all())
    with pytest.raises(ValueError, match="not finite"):
        run(network(pack), pack, other, pooled)


def test_both_can_be_calibrated(setup, parts, tmp_path):
    settings = recipe_settings(
        "q-dit4sr", parse_target("W4A4"), modulation="both", global_rank=2, local_rank=2
    )
    build_calibrated(
        *parts[:1], tmp_path / "a.qpack", settings, parts[1], CalibrationRun(setup.images)
    )
    pack = verify_pack(tmp_path / "a.qpack")
    assert pack.manifest.modulation.weights
    assert pack.manifest.calibration is not None


def test_table_alone_can_be_calibrated(setup, parts, tmp_path):
    settings = recipe_settings(
        "q-dit4sr", parse_target("W4A4"), modulation="table", global_rank=2, local_rank=2
    )
    build_calibrated(
        *parts[:1], tmp_path / "a.qpack", settings, parts[1], CalibrationRun(setup.images)
    )
    assert not verify_pack(tmp_path / "a.qpack").manifest.modulation.weights


def test_equal_prompts_have_one_row(parts, tmp_path):
    checkpoint, base = parts
    prompts = dict(base.prompts)
    prompts["negative.pooled"] = prompts["positive.pooled"]
    settings = recipe_settings("quarot", parse_target("W4A8"), modulation="table")
    build(checkpoint, tmp_path / "a.qpack", settings, replace(base, prompts=prompts))
    pack = verify_pack(tmp_path / "a.qpack")
    assert len(pack.manifest.modulation.prompts) == 1
    rows = pack.modulation_rows("norm_out.linear")
    assert rows.shape == (1, base.sampling.steps, 2 * TINY.hidden_size)


def test_without_prompts(parts):
    checkpoint, base = parts
    architecture, bare = checkpoint.architecture(), replace(base, prompts=None)
    settings = recipe_settings("standard", parse_target("W4A4"))
    assert settings.modulation == "table"
    settled, notes = settle_modulation(settings, architecture, bare, asked=False)
    assert (settled.modulation, notes) == ("weights", [FELL_BACK])
    assert settle_modulation(settings, architecture, base, asked=False) == (settings, [])
    with pytest.raises(UsageError, match="none") as error:
        settle_modulation(settings, architecture, bare, asked=True)
    assert "--modulation weights" in error.value.hint


def test_a_network_without_modulations(parts):
    checkpoint, base = parts
    family = replace(checkpoint.family, modulations=lambda _config: NO_MODULATIONS)
    architecture = replace(checkpoint.architecture(), family=family)
    settings = recipe_settings("standard", parse_target("W4A4"))
    settled, notes = settle_modulation(settings, architecture, base, asked=False)
    assert (settled.modulation, notes) == ("weights", [])
    with pytest.raises(UsageError, match="no modulations"):
        settle_modulation(settings, architecture, base, asked=True)


def test_sixteen_bits_err_as_little_as_they_can():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert in_16_bits(values).dtype == torch.float16
    large = torch.tensor([70000.0, 1.0])  # beyond float16
    assert in_16_bits(large).dtype == torch.bfloat16
    tiny = values * 1e-7  # below float16's normal numbers
    assert in_16_bits(tiny).dtype == torch.bfloat16


def test_the_command(setup, tmp_path):
    bare = setup.checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    ranks = ("--global-rank", 2, "--local-rank", 2)
    out = tmp_path / "a.qpack"
    asked = run_qplan("build", bare, *ranks, "--modulation", "table", "-o", out)
    assert_fails(asked, 2, "there are none", "--modulation weights")
    assert_fails(
        run_qplan("build", bare, *ranks, "--modulation", "curve", "-o", out), 2, "weights, table"
    )
    done = run_qplan(
        "build", setup.checkpoint, "--base", setup.base, *ranks, "--modulation", "table", "-o", out
    )
    assert done.exit_code == 0, done.stderr
    shown = run_qplan("inspect", out)
    assert "table of modulations instead of their layers: 2 prompts x 3 steps" in shown.stdout
    facts = json.loads(run_qplan("inspect", out, "--json").stdout)["modulation"]
    assert facts["bytes"] == (out / MODULATION).stat().st_size
    assert not facts["weights"]


def test_regrid_and_diff_keep_the_table(setup, built, tmp_path):
    table, new = built("table"), tmp_path / "new.qpack"
    layer = next(iter(table.manifest.layers))
    for edit in (f"{layer}=A6", f"{layer}=W6"):
        done = run_qplan(
            "regrid",
            table.path,
            "--set",
            edit,
            "--checkpoint",
            setup.checkpoint,
            "-o",
            new,
            "--force",
        )
        assert done.exit_code == 0, done.stderr
        again = verify_pack(new)
        assert again.manifest.modulation == table.manifest.modulation
        assert again.manifest.files[MODULATION] == table.manifest.files[MODULATION]
    done = run_qplan("diff", built("weights").path, table.path)
    assert "settings.modulation: weights -> table" in done.stdout
    assert open_pack(new).manifest.format_version == 2
