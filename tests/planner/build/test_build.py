"""The build: what the pack holds against what the checkpoint held."""

import math
import weakref
from fractions import Fraction
from importlib.metadata import version

import pytest
import torch

from artifacts.checkpoint.reader import Checkpoint, open_checkpoint
from artifacts.codec.block_shapes import block_shapes
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import POSITION_TABLE, block_linears, tensor_shapes
from artifacts.family import Architecture
from artifacts.pack.reader import open_pack, verify_pack
from planner.allocate.exact import allocate_exact
from planner.allocate.grid import rounded_down
from planner.allocate.vasmp import allocate, predicted_distortion
from planner.allocate.weight_bits import weight_bits
from planner.build import layers
from planner.build.base_model import BaseModel
from planner.build.build import build
from planner.build.layers import weight_statistics
from planner.build.network_probe import check_network, find_active_tensors
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.timesteps import sampling_timesteps
from schemas.errors import UsageError
from schemas.manifest import SamplingDefaults
from tests.artifacts.make_checkpoint import random_state, write_file, write_folder
from tests.artifacts.make_pack import TINY

SAMPLING = SamplingDefaults(
    steps=4, guidance=2.0, shift=3.0, tile_latent=16, overlap_latent=4, min_side_px=64
)
BASE = BaseModel(sampling=SAMPLING)


def settings(target="W4A4", **fields):
    parsed = parse_target(target, minimum_weight_bits=fields.get("minimum_bits", 2))
    return BuildSettings(parsed, **({"global_rank": 4, "local_rank": 2} | fields))


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, state):
    return open_checkpoint(write_folder(tmp_path_factory.mktemp("source") / "m", state))


@pytest.fixture
def built(tmp_path, checkpoint):
    """Build with the given settings, and open the verified pack."""

    def make(name="a.qpack", **fields):
        result = build(checkpoint, tmp_path / name, settings(**fields), BASE)
        pack = verify_pack(tmp_path / name)
        check_network(pack.manifest)
        assert pack.manifest == result.manifest
        return pack

    return make


def mean_weight_bits(pack):
    layers = [r for r in pack.manifest.layers.values() if r.weight_bits != 16]
    sizes = [r.out_features * r.in_features for r in layers]
    stored = sum(size * r.weight_bits for size, r in zip(sizes, layers, strict=True))
    return Fraction(stored, sum(sizes))


CHOICES = {
    "defaults": {},
    "fractional": {"target": "W3.5A4"},
    "weights-only": {"target": "W4A16"},
    "exact": {"target": "W2.7A4", "allocator": "exact"},
    "no-rotation": {"rotation": False},
    "no-signs": {"rotation_signs": False},
    "no-global": {"global_rank": 0},
    "no-local": {"local_rank": 0},
    "no-factors": {"global_rank": 0, "local_rank": 0},
    "kept": {"keep": ("norm1", r"ff\.net\.2$")},
    "r1": {"variant": "r1"},
    "narrow": {"minimum_bits": 3, "maximum_bits": 4, "target": "W3.9A4"},
    "one-bit": {"minimum_bits": 1, "target": "W1.5A8"},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_pack_decodes_to_its_source(checkpoint, built, state, choice):
    fields = CHOICES[choice]
    pack = built(**fields)
    asked = settings(**fields)
    manifest = pack.manifest

    # Every layer that is read, and no other.
    active = find_active_tensors(Architecture(FAMILY, TINY, asked.variant))
    assert set(manifest.omitted) == set(tensor_shapes(TINY)) - active - {POSITION_TABLE}
    assert manifest.rebuilt == (POSITION_TABLE,)

    # The error of every layer, recomputed in the original domain from the pack's own bytes.
    for name in pack.layer_names:
        source = state[f"{name}.weight"].double()
        noise = (pack.layer(name).decode() - source).square().sum()
        error_db = float(10 * torch.log10(source.square().sum() / noise))
        assert manifest.layers[name].error_db == pytest.approx(error_db, abs=0.01)
        assert torch.equal(pack.layer(name).bias, state[f"{name}.bias"])

    # Everything else as it was.
    for name in pack.tensor_names:
        assert torch.equal(pack.tensor(name), state[name]), name

    # The budget, in exact numbers.
    target = Fraction(str(asked.target.weight_bits))
    mean = mean_weight_bits(pack)
    assert mean <= target
    assert Fraction(str(manifest.reached.weight_bits)) <= mean
    assert manifest.reached.weight_bits == pytest.approx(float(mean), abs=1e-6)
    bits = [manifest.layers[name].weight_bits for name in pack.layer_names]
    assert asked.minimum_bits <= min(bits) <= max(bits) <= asked.maximum_bits

    # The factors' ranks and budgets.
    for name in pack.layer_names:
        record = manifest.layers[name]
        out_features, in_features = record.out_features, record.in_features
        assert record.global_rank == min(asked.global_rank, out_features, in_features)
        shapes = block_shapes(out_features, in_features, asked.local_rank)
        assert record.local_block in (shapes or [None])

    assert manifest.recipe.settings == asked.resolved(checkpoint).recorded()
    assert manifest.rotation.enabled == asked.rotation
    assert manifest.rotation.signs == (asked.rotation and asked.rotation_signs)
    for name in pack.layer_names:
        layer = pack.layer(name)
        assert layer.rotation.is_identity == (not asked.rotation)
        assert (layer.signs is not None) == manifest.rotation.signs


def test_kept_layers_are_whole_and_outside_the_budget(built, state):
    pack = built(keep=("norm1",))
    kept = [name for name, record in pack.manifest.layers.items() if record.weight_bits == 16]
    assert kept
    assert all("norm1" in name for name in kept)
    for name in kept:
        assert torch.equal(pack.tensor(f"{name}.weight"), state[f"{name}.weight"])
        assert set(pack.bit_grid.layers[name].activation_bits) == {16}
    assert Fraction(19, 5) < mean_weight_bits(pack) <= 4


def test_keeping_every_layer_is_refused(tmp_path, checkpoint):
    with pytest.raises(UsageError, match="nothing is left to quantize"):
        build(checkpoint, tmp_path / "a.qpack", settings(keep=(".",)), BASE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "expected", "warned"),
    [("W4A4", 4, False), ("W4A16", 16, False), ("W4A5.5", 5, True)],
)
def test_without_calibration_every_step_has_the_targets_bits(
    tmp_path, checkpoint, target, expected, warned
):
    result = build(checkpoint, tmp_path / "a.qpack", settings(target), BASE)
    pack = open_pack(tmp_path / "a.qpack")
    assert pack.bit_grid.timesteps == sampling_timesteps(SAMPLING)
    for name in pack.layer_names:
        assert pack.bit_grid.layers[name].activation_bits == (expected,) * 4
    assert pack.manifest.reached.activation_bits == expected
    assert any("calibration" in warning for warning in result.warnings) == warned


def test_bits_are_those_of_the_allocator_that_was_asked_for(checkpoint, built):
    statistics = weight_statistics(checkpoint, settings())
    greedy = weight_bits(statistics, settings("W2.7A4"))
    exact = weight_bits(statistics, settings("W2.7A4", allocator="exact"))
    assert greedy == allocate(statistics, 2.7)
    assert exact == allocate_exact(statistics, 2.7)
    assert predicted_distortion(statistics, exact) <= predicted_distortion(statistics, greedy)
    pack = built(target="W2.7A4", allocator="exact")
    assert {n: pack.manifest.layers[n].weight_bits for n in pack.layer_names} == exact


def test_the_statistic_comes_from_the_rotated_weight(checkpoint, state):
    for layer in weight_statistics(checkpoint, settings(rotation=False)):
        weight = state[f"{layer.name}.weight"].double()
        assert layer.variance == pytest.approx(float(weight.var(1, correction=0).mean()), rel=1e-5)
        assert layer.parameters == weight.numel() == math.prod(block_linears(TINY)[layer.name])


def test_the_statistic_can_be_what_the_factors_leave(checkpoint, state):
    chosen = settings(rotation=False, weight_statistic="residual", local_rank=0)
    whole = {s.name: s.variance for s in weight_statistics(checkpoint, settings(rotation=False))}
    for layer in weight_statistics(checkpoint, chosen):
        weight = state[f"{layer.name}.weight"].double()
        up, singular, down = torch.linalg.svd(weight, full_matrices=False)
        residual = weight - up[:, :4] * singular[:4] @ down[:4]
        expected = float(residual.var(1, correction=0).mean())
        # Factors are rounded to bfloat16, and the residual repairs it.
        assert layer.variance == pytest.approx(expected, rel=1e-3)
        assert layer.variance < whole[layer.name]


def test_two_builds_are_byte_identical(built):
    assert files(built("a.qpack").path) == files(built("b.qpack").path)


def test_neither_the_global_seed_nor_the_number_of_threads_shows(built):
    # At these sizes; large matrix products may be split, and so rounded, by thread.
    threads = torch.get_num_threads()
    packs = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(count)
            packs.append(files(built(f"{count}.qpack").path))
    finally:
        torch.set_num_threads(threads)
    assert packs[0] == packs[1]


def test_the_seed_shows(built):
    assert files(built("a.qpack", seed=1).path) != files(built("b.qpack", seed=2).path)


def test_the_form_of_the_source_shows_in_nothing_but_its_record(tmp_path, checkpoint, state):
    build(checkpoint, tmp_path / "a.qpack", settings(), BASE)
    bare = open_checkpoint(write_file(tmp_path / "m.safetensors", state))
    build(bare, tmp_path / "b.qpack", settings(), BASE)
    first, second = (files(tmp_path / f"{name}.qpack") for name in "ab")
    assert {str(n) for n in first if first[n] != second[n]} == {"manifest.json", "README.md"}


def test_the_manifest_says_where_the_pack_comes_from(built, checkpoint):
    manifest = built().manifest
    assert manifest.source.files == tuple(checkpoint.source_files())
    assert manifest.transformer_bytes.source == checkpoint.file_bytes
    assert (manifest.producer.name, manifest.producer.version) == ("qplan", version("qdit4sr"))
    readme = (built("b.qpack").path / "README.md").read_text()
    for file in manifest.source.files:
        assert file.sha256 in readme
    assert f"{manifest.transformer_bytes.pack:,}" in readme
    assert "licence" in readme


def test_a_position_table_that_cannot_be_rebuilt_is_kept(tmp_path, state):
    table = state[POSITION_TABLE].clone()
    table[0, 3, 4] += 0.25
    source = write_folder(tmp_path / "m", state | {POSITION_TABLE: table})
    build(open_checkpoint(source), tmp_path / "a.qpack", settings(), BASE)
    pack = verify_pack(tmp_path / "a.qpack")
    assert pack.manifest.rebuilt == ()
    assert torch.equal(pack.tensor(POSITION_TABLE), table)


def test_memory_holds_one_weight_at_a_time(tmp_path, checkpoint, monkeypatch):
    alive, most, reads = weakref.WeakSet(), 0, []
    read = Checkpoint.tensor

    def counted(self, name):
        nonlocal most
        tensor = read(self, name)
        reads.append(name)
        if name.endswith(".weight") and tensor.dim() == 2:
            alive.add(tensor)
            most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(Checkpoint, "tensor", counted)
    build(checkpoint, tmp_path / "a.qpack", settings(), BASE)
    assert most == 1
    # Twice each: once for its variance and once to be quantized.
    names = open_pack(tmp_path / "a.qpack").layer_names
    assert all(reads.count(f"{name}.weight") == 2 for name in names)


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(Fraction(4), 4), (Fraction(7, 2), 3.5), (Fraction(39999999, 10**7), 3.999999)],
)
def test_means_are_rounded_down(mean, expected):
    found = rounded_down(mean)
    assert found == expected
    assert type(found) is type(expected)


def test_timesteps_are_those_of_the_flow_matching_scheduler():
    # Shift s maps sigma to s sigma / (1 + (s - 1) sigma). diffusers, and with it Stable Diffusion
    # 3, applies it twice at the low end: to the smallest sigma, and to the line drawn from there.
    def shifted(sigma):
        return 3 * sigma / (1 + 2 * sigma)

    lowest = shifted(1 / 1000)
    line = [1 + (lowest - 1) * step / 39 for step in range(40)]
    expected = [1000 * shifted(sigma) for sigma in line]
    assert sampling_timesteps(
        SAMPLING.model_copy(update={"steps": 40, "shift": 3.0})
    ) == pytest.approx(expected, rel=1e-5)
    assert sampling_timesteps(SAMPLING.model_copy(update={"steps": 1})) == (1000,)


def test_linear_algebra_is_loaded_before_every_set_of_threads(tmp_path, checkpoint, monkeypatch):
    """On a GPU threads that load it at once fail; measuring residuals decomposes, too."""
    events = []
    threads = layers.in_order

    def recorded(function, items):
        events.append("threads")
        return threads(function, items)

    monkeypatch.setattr(layers, "load_linear_algebra", lambda device: events.append("loaded"))
    monkeypatch.setattr(layers, "in_order", recorded)
    build(checkpoint, tmp_path / "m.qpack", settings(weight_statistic="residual"), BASE)
    assert events == ["loaded", "threads"] * 2
