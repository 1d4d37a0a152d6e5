"""Rows of a weight, each with a step of its own."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import dequantize_rows, encode_rows, quantize_rows
from planner.weights import row_energy
from planner.weights.row_scales import quantize_weight_rows


def rows(kind, generator):
    """Rows as layers have them: normal ones, some with outliers, some with short tails."""
    normal = torch.randn(64, 192, generator=generator)
    if kind == "outliers":
        normal[:, 7] *= 12
    if kind == "short tails":
        normal = torch.rand(64, 192, generator=generator) - 0.5
    return normal * torch.logspace(-3, 3, 64)[:, None]


def error_of(weight, codes, scale, bits):
    """Squared error of every row."""
    return (dequantize_rows(codes, scale, bits) - weight).square().sum(1)


@pytest.mark.parametrize("kind", ["normal", "outliers", "short tails"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_no_row_is_worse_than_by_either_rule(kind, bits):
    weight = rows(kind, torch.Generator().manual_seed(bits))
    made = quantize_weight_rows(weight, bits, "mse")
    found = error_of(weight, made.codes, made.scale, bits)
    for rule in ("gaussian", "absmax"):
        # Candidates are the rules' own steps, but for float32 rounding of a power.
        other = error_of(weight, *quantize_rows(weight, bits, rule), bits)
        assert bool((found <= other * (1 + 1e-4)).all())


def test_it_is_near_the_best_of_a_fine_search():
    weight = rows("outliers", torch.Generator().manual_seed(0))
    made = quantize_weight_rows(weight, 4, "mse")
    found = error_of(weight, made.codes, made.scale, 4).sum()
    _, normal = quantize_rows(weight, 4)
    tried = []
    for factor in torch.linspace(0.5, 3, 101):
        scale = normal * factor
        codes = (weight / scale[:, None] + 8).floor().clamp(0, 15).to(torch.uint8)
        tried.append(error_of(weight, codes, scale, 4))
    best = torch.stack(tried).amin(0).sum()
    assert float(found) < 1.1 * float(best)


@pytest.mark.parametrize("rule", ["gaussian", "absmax"])
def test_other_rules_are_the_quantizers(rule):
    weight = rows("normal", torch.Generator().manual_seed(1))
    codes, scale, _ = quantize_weight_rows(weight, 3, rule)
    expected, expected_scale = quantize_rows(weight, 3, rule)
    assert torch.equal(codes, expected)
    assert torch.equal(scale, expected_scale)


def test_a_row_of_zeros_stays_zero():
    weight = torch.zeros(3, 8)
    weight[1] = torch.arange(8.0)
    codes, scale, _ = quantize_weight_rows(weight, 4, "mse")
    assert scale[0] == scale[2] == 0
    assert scale[1] > 0
    assert not dequantize_rows(codes, scale, 4)[[0, 2]].any()


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "mse"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_error_is_that_of_the_decoded_rows(rule, bits):
    weight = rows("outliers", torch.Generator().manual_seed(bits))
    weight[5] = 0
    weight[6] *= 1e-30  # too small for a mean square, so it decodes to zeros
    codes, scale, error = quantize_weight_rows(weight, bits, rule)
    assert torch.equal(codes, encode_rows(weight, scale, bits))
    true = (dequantize_rows(codes, scale.double(), bits) - weight.double()).square().sum(1)
    torch.testing.assert_close(error, true, rtol=1e-4, atol=0)
    assert error[5] == 0


def test_long_rows_are_cut_into_parts_that_do_not_show(monkeypatch):
    weight = rows("normal", torch.Generator().manual_seed(2))
    whole = quantize_weight_rows(weight, 4, "mse")
    monkeypatch.setattr(row_energy, "CHUNK_NUMBERS", 5 * weight.shape[1])
    for part, expected in zip(quantize_weight_rows(weight, 4, "mse"), whole, strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "mse"])
def test_what_is_not_finite_is_refused(rule):
    weight = torch.ones(2, 8)
    weight[1, 3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        quantize_weight_rows(weight, 4, rule)
