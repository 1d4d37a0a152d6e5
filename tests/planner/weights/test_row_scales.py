"""Rows of a weight, each with a step of its own."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
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
    found = error_of(weight, *quantize_weight_rows(weight, bits, "mse"), bits)
    for rule in ("gaussian", "absmax"):
        # Candidates are the rules' own steps, but for float32 rounding of a power.
        other = error_of(weight, *quantize_rows(weight, bits, rule), bits)
        assert bool((found <= other * (1 + 1e-4)).all())


def test_it_is_near_the_best_of_a_fine_search():
    weight = rows("outliers", torch.Generator().manual_seed(0))
    found = error_of(weight, *quantize_weight_rows(weight, 4, "mse"), 4).sum()
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
    codes, scale = quantize_weight_rows(weight, 3, rule)
    expected, expected_scale = quantize_rows(weight, 3, rule)
    assert torch.equal(codes, expected)
    assert torch.equal(scale, expected_scale)


def test_a_row_of_zeros_stays_zero():
    weight = torch.zeros(3, 8)
    weight[1] = torch.arange(8.0)
    codes, scale = quantize_weight_rows(weight, 4, "mse")
    assert scale[0] == scale[2] == 0
    assert scale[1] > 0
    assert not dequantize_rows(codes, scale, 4)[[0, 2]].any()
