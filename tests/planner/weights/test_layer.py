"""One layer: rotation, factors, codes and the error that is reported."""

import math

import pytest
import torch

from artifacts.codec.gaussian_quantizer import gaussian_level
from artifacts.codec.hadamard import Rotation
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.layer import (
    allocation_variance,
    mean_row_variance,
    planned_record,
    quantize_layer,
    rotate,
    rotation_for,
)


def settings(**fields):
    return BuildSettings(parse_target("W4A4"), **({"global_rank": 2, "local_rank": 2} | fields))


def weight(out_features=48, in_features=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.05 * torch.randn(out_features, in_features, generator=generator)


def snr_db(true, found):
    true, found = true.double(), found.double()
    return float(10 * torch.log10(true.square().sum() / (true - found).square().sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rotation_signs": False},
        {"rotation": False},
        {"global_rank": 0},
        {"local_rank": 0},
        {"global_rank": 0, "local_rank": 0},
    ],
    ids=["all", "no-signs", "no-rotation", "no-global", "no-local", "no-factors"],
)
def test_the_recorded_error_is_that_of_the_decoded_weight(dtype, bits, fields):
    source = weight().to(dtype)
    layer = quantize_layer("a.b", source, torch.ones(48), bits, settings(**fields))
    assert layer.record.error_db == pytest.approx(snr_db(source, layer.weight.decode()), abs=0.01)
    # 0.5 dB: 48 x 96 samples of a distribution that is only nearly Gaussian.
    assert layer.record.error_db > -10 * math.log10(gaussian_level(bits).mse) - 0.5
    assert layer.weight.bias.dtype == torch.bfloat16
    rotated = rotate(source, settings(**fields))
    total = float(rotated.double().square().sum())
    for share, rank in (("global_energy", "global_rank"), ("local_energy", "local_rank")):
        assert (getattr(layer.record, share) > 0) == (fields.get(rank) != 0)
    branches = layer.weight.low_rank(torch.float64)
    left = float((rotated.double() - branches).square().sum()) / total
    recorded = layer.record.global_energy + layer.record.local_energy
    assert recorded == pytest.approx(1 - left, abs=2e-6)


def test_rotation_is_what_the_settings_say():
    assert rotation_for(96, settings(rotation=False)) == (Rotation.identity(96), None)
    rotation, signs = rotation_for(96, settings(rotation_signs=False))
    assert (rotation.construction, signs) == ("paley12", None)
    _, signs = rotation_for(96, settings(seed=1))
    _, others = rotation_for(96, settings(seed=2))
    assert set(signs.tolist()) == {1.0, -1.0}
    assert not torch.equal(signs, others)
    # A size with no rotation has nothing to flip.
    assert rotation_for(36, settings()) == (Rotation.identity(36), None)


def test_rotation_helps_where_one_column_stands_out():
    source = weight()
    source[:, 5] *= 40
    plain = {"global_rank": 0, "local_rank": 0}
    rotated = quantize_layer("a", source, None, 3, settings(**plain))
    straight = quantize_layer("a", source, None, 3, settings(**plain, rotation=False))
    assert rotated.record.error_db > straight.record.error_db + 3
    assert rotated.weight.bias is None


def test_the_statistic_is_the_mean_of_row_variances():
    rows = torch.tensor([[1.0, 3.0], [10.0, 10.0]])
    # Variances 1 and 0, whatever the means.
    assert mean_row_variance(rows, Rotation.identity(2), None) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("in_features", [96, 80, 64, 48, 36])
@pytest.mark.parametrize("fields", [{}, {"rotation_signs": False}, {"rotation": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_statistic_of_the_rotated_weight_needs_no_rotation(in_features, fields, dtype):
    chosen = settings(**fields)
    source = (weight(40, in_features) + torch.linspace(-0.1, 0.2, in_features)).to(dtype)
    rotated = rotate(source, chosen).double()
    expected = float(rotated.var(dim=1, unbiased=False).mean())
    assert allocation_variance(source, chosen) == pytest.approx(expected, rel=1e-5)


def test_the_residuals_statistic_is_of_what_gets_quantized():
    chosen = settings(weight_statistic="residual")
    layer = quantize_layer("a", weight(), None, 8, chosen)
    residual = rotate(weight(), chosen) - layer.weight.low_rank()
    expected = float(residual.var(dim=1, unbiased=False).mean())
    assert allocation_variance(weight(), chosen) == pytest.approx(expected, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields", [{}, {"weight_scale": "mse", "factor_bits": 8}, {"effort": "thorough"}]
)
def test_a_gpu_makes_as_good_a_layer(fields):
    chosen, source = settings(**fields), weight(640, 320).bfloat16()
    ours = quantize_layer("a", source.cuda(), torch.ones(640), 4, chosen)
    expected = quantize_layer("a", source, torch.ones(640), 4, chosen)
    assert ours.record.error_db == pytest.approx(expected.record.error_db, abs=0.02)
    assert all(tensor.device.type == "cpu" for tensor in ours.weight.tensors().values())
    assert snr_db(source, ours.weight.decode()) == pytest.approx(ours.record.error_db, abs=0.01)
    variances = [allocation_variance(w, chosen) for w in (source, source.cuda())]
    assert variances[0] == pytest.approx(variances[1], rel=1e-4)


def test_the_source_stays_as_it_is():
    source = weight()
    for fields in ({}, {"rotation": False}):
        quantize_layer("a", source, None, 4, settings(**fields))
        allocation_variance(source, settings(weight_statistic="residual", **fields))
        assert torch.equal(source, weight())


def test_a_zero_weight_is_noted():
    layer = quantize_layer("a", torch.zeros(48, 96), torch.zeros(48), 4, settings())
    assert (layer.record.note, layer.record.error_db) == ("all zeros", None)
    assert not layer.weight.decode().any()


def test_a_failed_decomposition_is_noted(monkeypatch):
    def diverge(_):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", diverge)
    layer = quantize_layer("a", weight(), None, 4, settings())
    assert "did not converge" in layer.record.note
    assert (layer.record.global_rank, layer.record.local_block) == (0, None)


@pytest.mark.parametrize("scale", [1e-30, 1e15])
def test_extreme_weights_give_a_finite_layer(scale):
    layer = quantize_layer("a", weight() * (scale / 0.05), None, 4, settings())
    assert bool(torch.isfinite(layer.weight.decode()).all())
    assert layer.record.error_db is not None


@pytest.mark.parametrize("rank", [0, 2, 500])
@pytest.mark.parametrize("rotation", [True, False])
def test_the_planned_record_is_what_comes_but_for_the_local_blocks(rank, rotation):
    chosen = settings(global_rank=rank, local_rank=0, rotation=rotation)
    made = quantize_layer("a", weight(), None, 4, chosen).record
    measured = {"error_db": None, "global_energy": None, "local_energy": None}
    assert planned_record(48, 96, 4, chosen) == made.model_copy(update=measured)
    assert planned_record(48, 96, 4, settings(local_rank=5)).local_block is None
    smoothing = settings(smoothing="search", rotation=False)
    assert planned_record(48, 96, 4, smoothing).smoothing
