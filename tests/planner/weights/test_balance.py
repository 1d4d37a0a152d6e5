"""Smoothing ahead of the rotation: what the vector makes least, and what a layer gains by it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.balance import LEAST_POWER, balancing_vector, remaining_error
from planner.weights.layer import quantize_layer
from runtime.backends.reference import ReferenceLinear

OUT, IN = 48, 96


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uneven_power(seed=0, spread=1.5):
    """Mean squares of channels whose magnitudes lie far apart."""
    return (spread * torch.randn(IN, generator=seeded(seed))).exp().square()


def product(power, columns, vector):
    """What both errors are in proportion to; squared norms of ``columns`` [in]."""
    power, columns, square = power.double(), columns.double(), vector.double().square()
    return float((power / square).sum() * (square * columns).sum())


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**16), size=st.floats(1e-20, 1e20), spread=st.floats(0, 1))
def test_no_other_vector_has_a_smaller_product(seed, size, spread):
    power = uneven_power(seed, spread)
    vector = balancing_vector(power * size)
    least = product(power, torch.ones(IN), vector)
    assert least == pytest.approx(float(power.double().sqrt().sum() ** 2), rel=1e-5)
    other = vector * (0.3 * torch.randn(IN, generator=seeded(seed + 1))).exp()
    assert product(power, torch.ones(IN), other) >= least
    assert remaining_error(vector) == pytest.approx(
        least / product(power, torch.ones(IN), torch.ones(IN)), rel=1e-5
    )


def test_the_input_keeps_its_energy():
    power = uneven_power()
    vector = balancing_vector(power)
    assert float((power / vector.square()).sum()) == pytest.approx(float(power.sum()), rel=1e-5)
    assert torch.allclose(balancing_vector(torch.full((IN,), 3.0)), torch.ones(IN))


def test_channels_that_were_not_used_are_not_blown_up():
    power = torch.ones(IN)
    power[7] = 0
    vector = balancing_vector(power)
    assert float(vector[7] / vector[8]) == pytest.approx(LEAST_POWER**0.25, rel=0.01)
    assert torch.equal(balancing_vector(torch.zeros(IN)), torch.ones(IN))


def uneven_layer():
    power = uneven_power(spread=0.8)
    x = torch.randn(600, IN, generator=seeded(1)) * power.sqrt()
    weight = 0.05 * torch.randn(OUT, IN, generator=seeded(2))
    return weight, x, balancing_vector(x.square().mean(0))


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize("ranks", [(0, 0), (4, 2)])
def test_a_layers_output_errs_less_by_as_much_as_predicted(ranks, rounding):
    weight, x, vector = uneven_layer()
    chosen = BuildSettings(
        parse_target("W4A4"),
        global_rank=ranks[0],
        local_rank=ranks[1],
        smoothing="balance",
        weight_rounding=rounding,
    )
    exact = x.double() @ weight.double().T
    errors = {}
    for smoothing in (None, vector):
        made = quantize_layer(
            "l", weight, None, 4, chosen, moment=x.mT @ x, smoothing=smoothing
        ).weight
        for bits in (4, 16):
            y = ReferenceLinear(made, "gaussian")(x, bits).double()
            errors[smoothing is None, bits] = float((y - exact).square().sum())
    predicted = remaining_error(vector)
    assert predicted < 0.7
    ratio = {bits: errors[False, bits] / errors[True, bits] for bits in (4, 16)}
    if rounding == "nearest":  # factors take something already; one draw of 48 x 96 numbers
        assert ratio[4] == pytest.approx(predicted, rel=0.35)
        assert ratio[16] == pytest.approx(predicted, rel=0.35)
    else:  # GPTQ goes by how uneven inputs are; what remains is the activations' part
        assert predicted < ratio[4] < 0.7
        assert ratio[16] == pytest.approx(1, rel=0.1)


def test_the_decoded_layer_is_the_smoothed_and_rotated_one():
    weight, x, vector = uneven_layer()
    chosen = BuildSettings(parse_target("W8A8"), global_rank=4, smoothing="balance")
    made = quantize_layer("l", weight, torch.ones(OUT), 8, chosen, smoothing=vector)
    assert made.record.smoothing
    assert made.record.rotation == str(IN)
    stored = made.weight
    assert torch.equal(stored.smoothing, vector)
    # W' = W diag(s) diag(signs) H, x' = x / s, signs, H: the same product, one by one.
    hadamard = stored.rotation.apply(torch.eye(IN, dtype=torch.float64), stored.signs)
    turned = weight.double() * vector.double() @ hadamard
    z = x.double() / vector.double() @ hadamard
    torch.testing.assert_close(z @ turned.T, x.double() @ weight.double().T)
    decoded = stored.decode().double() * vector.double() @ hadamard
    assert float((decoded - turned).norm() / turned.norm()) < 0.01
    noise = (stored.decode() - weight.double()).norm() / weight.norm()
    assert made.record.error_db == pytest.approx(-20 * torch.log10(noise).item(), abs=0.01)


def test_a_layer_that_is_not_balanced_has_no_vector():
    weight, _, _ = uneven_layer()
    chosen = BuildSettings(parse_target("W4A4"), smoothing="balance")
    made = quantize_layer("l", weight, None, 4, chosen)
    assert made.weight.smoothing is None
    assert not made.record.smoothing
