"""Factors fitted to outputs: against the first ones, and against the definition."""

from functools import partial

import pytest
import torch

from artifacts.codec.factor_pair import global_product, local_product
from artifacts.codec.gaussian_quantizer import dequantize_rows
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.gptq import gptq_weight_rows
from planner.weights.hsvd import decompose
from planner.weights.layer import quantize_layer
from planner.weights.moment_root import MomentRoot
from planner.weights.output_fit import fit_to_outputs
from planner.weights.row_scales import quantize_weight_rows

BITS = range(1, 9)


def weight(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def correlated(size, seed):
    """Second moment of inputs whose channels go together."""
    x = weight(4 * size, size, seed) @ weight(size, size, seed + 1)
    return x.mT @ x


def output_error(error, root):
    """``tr(E M Eᵀ)``, in double precision."""
    return float(((error.double() @ root.damped().double()) * error.double()).sum())


def fitted(rows, root, bits, *, turns=2, factor_bits=16, nearest=False, local_rank=0):
    """The error of what is stored at first and after fitting, and the fitted parts."""
    found = decompose(rows, global_rank=4, local_rank=local_rank, factor_bits=factor_bits)

    def rounded(residual):
        if nearest:
            return quantize_weight_rows(residual, bits, "gaussian")
        return gptq_weight_rows(residual, root, bits, "gaussian")

    fit = partial(fit_to_outputs, found, root, bits, rounded, tolerance=1e-4, seed=0)
    return [
        (factors, codes, stored(factors, codes, bits) - rows)
        for factors, codes in (fit(turns=0), fit(turns=turns))
    ]


def stored(factors, codes, bits):
    whole = dequantize_rows(codes.codes, codes.scale, bits) + global_product(factors.global_factors)
    if factors.local_factors is not None:
        whole = whole + local_product(factors.local_factors)
    return whole


@pytest.mark.parametrize("factor_bits", [8, 16])
@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("bits", BITS)
def test_the_output_errs_less(bits, nearest, factor_bits):
    rows, root = weight(48, 96, bits), MomentRoot.of(correlated(96, bits))
    before, after = fitted(rows, root, bits, nearest=nearest, factor_bits=factor_bits)
    bound = 0.97 if bits < 8 else 1.0  # there factors of 8 bits round as coarsely
    assert output_error(after[2], root) <= bound * output_error(before[2], root)


def test_more_turns_find_no_worse():
    rows, root = weight(64, 96, 1), MomentRoot.of(correlated(96, 2))
    errors = [output_error(fitted(rows, root, 3, turns=n)[1][2], root) for n in range(5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < errors[1]


def test_one_turn_finds_the_best_factors_there_are():
    """Of what is not in the codes: the bound of Eckart and Young in whitened numbers."""
    rows, root = weight(40, 64, 3), MomentRoot.of(correlated(64, 4))
    factors, codes, error = fitted(rows, root, 4, turns=1)[1]
    wanted = rows - dequantize_rows(codes.codes, codes.scale, 4)
    values = torch.linalg.svdvals(root.whitened(wanted).double())
    least = float(values[4:].square().sum())
    assert output_error(error, root) == pytest.approx(least, rel=0.01)  # factors are bfloat16
    assert factors.global_factors.down.shape == (4, 64)


def test_what_is_returned_belongs_together():
    rows, root = weight(48, 96, 5), MomentRoot.of(correlated(96, 6))
    _, (factors, codes, error) = fitted(rows, root, 4, factor_bits=8, local_rank=4)
    left = rows - stored(factors, codes, 4) + dequantize_rows(codes.codes, codes.scale, 4)
    torch.testing.assert_close(factors.residual, left, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        codes.squared_error, error.double().square().sum(1), rtol=1e-4, atol=0
    )
    removed = 1 - float(left.square().sum() / rows.square().sum())
    assert factors.global_energy + factors.local_energy == pytest.approx(removed, abs=1e-4)


def test_white_inputs_and_many_bits_leave_the_factors_of_the_weight():
    """Nothing is lost to rounding, and all directions count alike: that is H-SVD's own question."""
    rows = weight(48, 8, 7) @ weight(8, 96, 8)
    root = MomentRoot.of(torch.eye(96))
    before, after = fitted(rows, root, 8)
    products = [global_product(factors.global_factors) for factors, _, _ in (before, after)]
    assert float((products[1] - products[0]).norm()) < 0.02 * float(products[0].norm())


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e12, 1e16])
def test_the_size_of_the_weight_does_not_matter(scale):
    rows, root = weight(32, 64, 9), MomentRoot.of(correlated(64, 10))
    before, after = fitted(rows * scale, root, 4)
    found = [output_error(error / scale, root) for _, _, error in (before, after)]
    assert found[1] < 0.97 * found[0]


def test_a_weight_of_zeros_and_one_without_factors_stay():
    root = MomentRoot.of(correlated(64, 11))
    for found in (
        decompose(torch.zeros(32, 64), global_rank=4, local_rank=0),
        decompose(weight(32, 64, 12), global_rank=0, local_rank=2),
    ):
        rounded = partial(quantize_weight_rows, bits=4, rule="gaussian")
        factors, _ = fit_to_outputs(found, root, 4, rounded, turns=2, tolerance=1e-3, seed=0)
        assert factors is found


def settings(**choices):
    target = parse_target("W4A4", minimum_weight_bits=2, maximum_weight_bits=8)
    return BuildSettings(target, **{"global_rank": 4, "local_rank": 2, **choices})


def test_a_layer_of_a_build_errs_less_with_every_effort():
    moment, rows = correlated(96, 12), weight(64, 96, 13)
    errors = []
    for fit, effort in (
        ("weight", "normal"),
        ("outputs", "fast"),
        ("outputs", "normal"),
        ("outputs", "thorough"),
    ):
        chosen = settings(weight_rounding="gptq", factor_fit=fit, effort=effort)
        off = (quantize_layer("layer", rows, None, 3, chosen, moment=moment).weight.decode()) - rows
        errors.append(float(((off.double() @ moment.double()) * off.double()).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.9 * errors[0]


def test_a_layer_needs_its_moment():
    with pytest.raises(ValueError, match="second moment"):
        quantize_layer("layer", weight(8, 32, 0), None, 4, settings(factor_fit="outputs"))


@pytest.mark.parametrize("moment", [torch.zeros(32, 32), torch.full((32, 32), torch.nan)])
def test_inputs_that_say_nothing_leave_everything_as_it_was(moment):
    rows = weight(16, 32, 14)
    made = [
        quantize_layer("layer", rows, None, 4, settings(factor_fit=fit), moment=moment).weight
        for fit in ("weight", "outputs")
    ]
    assert torch.equal(made[0].decode(), made[1].decode())
