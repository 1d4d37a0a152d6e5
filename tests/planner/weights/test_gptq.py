"""GPTQ: against rounding to nearest, and against the definition."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import dequantize_rows
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights import gptq
from planner.weights.layer import quantize_layer, rotate, rotated_moment
from planner.weights.moment_root import DAMPING, MomentRoot
from planner.weights.row_scales import quantize_weight_rows

BITS = range(2, 9)


def correlated(size, seed, *, tokens=None):
    """Second moment of inputs whose channels go together."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) / size**0.5
    x = torch.randn(tokens or 4 * size, size, generator=generator) @ mixing
    return x.mT @ x


def weight(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def gptq_weight_rows(rows, moment, bits, rule, damping=DAMPING, **more):
    return gptq.gptq_weight_rows(rows, MomentRoot.of(moment, damping), bits, rule, **more)


def weighted_error(made, rows, moment, bits):
    off = (dequantize_rows(made.codes, made.scale, bits) - rows).double()
    return float(((off @ moment.double()) * off).sum())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_white_inputs_round_to_nearest(bits, factor):
    rows = weight(24, 96, bits)
    made = gptq_weight_rows(rows, factor * torch.eye(96), bits, "gaussian")
    nearest = quantize_weight_rows(rows, bits, "gaussian")
    assert torch.equal(made.codes, nearest.codes)
    assert torch.equal(made.scale, nearest.scale)


@pytest.mark.parametrize("bits", BITS)
def test_the_output_error_is_far_smaller(bits):
    rows, moment = weight(48, 160, bits), correlated(160, bits)
    made = gptq_weight_rows(rows, moment, bits, "gaussian")
    nearest = quantize_weight_rows(rows, bits, "gaussian")
    assert torch.equal(made.scale, nearest.scale)
    found, before = (weighted_error(m, rows, moment, bits) for m in (made, nearest))
    assert found < 0.7 * before
    true = (dequantize_rows(made.codes, made.scale.double(), bits) - rows).square().sum(1)
    torch.testing.assert_close(made.squared_error, true.double(), rtol=1e-4, atol=0)


def test_it_is_the_papers_recursion():
    """Column by column with the inverse of what is left, as its Eq. 2 and 3 have it."""
    bits, size = 3, 40
    rows, moment = weight(8, size, 1), correlated(size, 2)
    made = gptq_weight_rows(rows, moment, bits, "gaussian", damping=0.05)
    damped = moment.double() / moment.diagonal().mean() + 0.05 * torch.eye(size)
    left = rows.double()
    codes = torch.empty_like(made.codes)
    for i in range(size):
        inverse = torch.linalg.inv(damped[i:, i:])
        steps = left[:, i] / made.scale
        codes[:, i] = (steps + 2 ** (bits - 1)).floor().clamp(0, 2**bits - 1).to(torch.uint8)
        decoded = dequantize_rows(codes[:, i : i + 1], made.scale, bits)[:, 0]
        error = (left[:, i] - decoded) / inverse[0, 0]
        left[:, i:] -= error[:, None] * inverse[0]
    assert float((codes == made.codes).float().mean()) > 0.99


def test_blocks_of_columns_do_not_show(monkeypatch):
    rows, moment = weight(16, 150, 3), correlated(150, 4)
    whole = gptq_weight_rows(rows, moment, 4, "gaussian")
    monkeypatch.setattr(gptq, "COLUMNS", 7)
    parts = gptq_weight_rows(rows, moment, 4, "gaussian")
    # Sums in another order differ in their last bits, and a code next to a border with them.
    assert float((parts.codes == whole.codes).float().mean()) > 0.99
    assert weighted_error(parts, rows, moment, 4) == pytest.approx(
        weighted_error(whole, rows, moment, 4), rel=0.02
    )


def test_fewer_tokens_than_channels():
    rows, moment = weight(16, 128, 5), correlated(128, 6, tokens=9)
    made = gptq_weight_rows(rows, moment, 4, "gaussian")
    nearest = quantize_weight_rows(rows, 4, "gaussian")
    found, before = (weighted_error(m, rows, moment, 4) for m in (made, nearest))
    assert found < 0.2 * before


@pytest.mark.parametrize("moment", [torch.zeros(32, 32), torch.full((32, 32), torch.nan)])
def test_inputs_that_say_nothing_round_to_nearest(moment):
    rows = weight(4, 32, 7)
    made = gptq_weight_rows(rows, moment, 4, "gaussian")
    assert torch.equal(made.codes, quantize_weight_rows(rows, 4, "gaussian").codes)


def test_a_channel_that_is_never_fed_and_a_row_of_zeros():
    rows, moment = weight(4, 32, 8), correlated(32, 9)
    moment[5] = moment[:, 5] = 0
    rows[2] = 0
    made = gptq_weight_rows(rows, moment, 4, "gaussian")
    decoded = dequantize_rows(made.codes, made.scale, 4)
    assert bool(torch.isfinite(decoded).all())
    assert not decoded[2].any()


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "mse"])
def test_what_is_not_finite_is_refused(rule):
    rows = weight(4, 32, 10)
    rows[1, 3] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        gptq_weight_rows(rows, torch.eye(32), 4, rule)


def damped_errors(made, rows, moment, bits, damping=DAMPING):
    """What a search makes small, row by row: ``E M Eᵀ`` with the damped moment."""
    damped = moment.double() / moment.diagonal().mean() + damping * torch.eye(len(moment))
    off = (dequantize_rows(made.codes, made.scale, bits) - rows).double()
    return ((off @ damped) * off).sum(1)


@pytest.mark.parametrize("bits", [1, *BITS])
def test_a_search_makes_no_row_worse(bits):
    rows, moment = weight(48, 160, bits), correlated(160, bits)
    before, after = (
        damped_errors(made, rows, moment, bits)
        for made in (
            gptq_weight_rows(rows, moment, bits, "gaussian", search=search)
            for search in (False, True)
        )
    )
    assert bool((after <= before * 1.0001).all())
    assert float(after.sum()) < 0.95 * float(before.sum())


def test_a_search_rounds_a_column_to_the_best_level_given_the_others(monkeypatch):
    """After enough sweeps no other level of any one number lowers the error."""
    monkeypatch.setattr(gptq, "SWEEPS", 20)
    monkeypatch.setattr(gptq, "COLUMNS", 7)
    bits = 3
    rows, moment = weight(6, 40, 14), correlated(40, 15)
    made = gptq_weight_rows(rows, moment, bits, "gaussian", search=True)
    least = damped_errors(made, rows, moment, bits)
    for column in range(40):
        for code in range(2**bits):
            codes = made.codes.clone()
            codes[:, column] = code
            others = damped_errors(made._replace(codes=codes), rows, moment, bits)
            assert bool((others >= least * (1 - 1e-5)).all())


def test_a_thorough_build_searches():
    moment, rows = correlated(96, 12), weight(64, 96, 13)
    errors = []
    for effort in ("normal", "thorough"):
        chosen = settings(weight_rounding="gptq", effort=effort)
        made = quantize_layer("layer", rows, None, 6, chosen, moment=moment).weight
        off = (made.decode() - rows).double()
        errors.append(float(((off @ moment.double()) * off).sum()))
    assert errors[1] < 0.9 * errors[0]


def settings(**choices):
    target = parse_target("W4A4", minimum_weight_bits=2, maximum_weight_bits=8)
    ranks = {"global_rank": 2, "local_rank": 0}
    return BuildSettings(target, **{**ranks, **choices})


@pytest.mark.parametrize("smoothing", [None, torch.linspace(0.5, 2, 96)])
def test_the_moment_follows_smoothing_and_rotation(smoothing):
    x = torch.randn(50, 96, generator=torch.Generator().manual_seed(11))
    z = rotate(x if smoothing is None else x / smoothing, settings())
    found = rotated_moment(x.mT @ x, settings(), smoothing)
    torch.testing.assert_close(found, z.mT @ z, rtol=1e-4, atol=1e-3)


def test_a_layer_errs_less_where_it_is_fed():
    moment, rows = correlated(96, 12), weight(64, 96, 13)
    found = {}
    for rounding in ("nearest", "gptq"):
        made = quantize_layer(
            "layer", rows, None, 4, settings(weight_rounding=rounding), moment=moment
        )
        off = (made.weight.decode() - rows).double()
        found[rounding] = float(((off @ moment.double()) * off).sum()), made
    assert found["gptq"][0] < 0.6 * found["nearest"][0]
    gptq, nearest = found["gptq"][1].weight, found["nearest"][1].weight
    assert torch.equal(gptq.scale, nearest.scale)
    assert torch.equal(gptq.global_up, nearest.global_up)


def test_a_layer_needs_its_moment():
    with pytest.raises(ValueError, match="second moment"):
        quantize_layer("layer", weight(8, 32, 0), None, 4, settings(weight_rounding="gptq"))
