"""What every layer adds to the predicted error."""

import pytest

from artifacts.codec.gaussian_quantizer import gaussian_level
from planner.allocate.error_shares import error_shares
from planner.allocate.sensitivity import ActivationCosts
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths

WEIGHTS = {"feed": 100.0, "text": 1.0}
ACTIVATIONS = ActivationCosts((900.0, 100.0), {"feed": (1.0, 50.0), "text": (0.5, 0.5)})


def grid(feed, text, timesteps=(900.0, 100.0)):
    return BitGrid(
        target=MeanBitWidths(weight_bits=4, activation_bits=4),
        timesteps=timesteps,
        layers={
            "feed": LayerBits(weight_bits=feed[0], activation_bits=feed[1:]),
            "text": LayerBits(weight_bits=text[0], activation_bits=text[1:]),
        },
    )


def kappa(bits):
    return gaussian_level(bits).mse


def test_shares_are_those_of_the_first_order_model():
    shares = error_shares(WEIGHTS, ACTIVATIONS, grid((6, 2, 6), (2, 4, 4)))
    parts = {
        ("feed", "weights"): 100 * kappa(6),
        ("feed", "activations"): kappa(2) + 50 * kappa(6),
        ("text", "weights"): kappa(2),
        ("text", "activations"): kappa(4),
    }
    for (name, part), error in parts.items():
        expected = error / sum(parts.values())
        assert getattr(shares[name], part) == pytest.approx(expected, rel=1e-3)
    total = sum(share.weights + share.activations for share in shares.values())
    assert total == pytest.approx(1, abs=1e-3)


def test_more_bits_lessen_a_share():
    before = error_shares(WEIGHTS, ACTIVATIONS, grid((4, 4, 4), (4, 4, 4)))
    after = error_shares(WEIGHTS, ACTIVATIONS, grid((8, 4, 4), (4, 4, 4)))
    assert after["feed"].weights < before["feed"].weights / 40
    assert after["text"].activations > before["text"].activations


def test_what_is_not_quantized_adds_nothing():
    shares = error_shares(WEIGHTS, ACTIVATIONS, grid((4, 16, 16), (16, 16, 16)))
    assert (shares["feed"].weights, shares["feed"].activations) == (1, 0)
    assert shares["text"].weights == 0
    assert error_shares(WEIGHTS, ACTIVATIONS, grid((16, 16, 16), (16, 16, 16))) == {}


def test_a_grid_of_other_steps_has_those_of_the_nearest():
    same = error_shares(WEIGHTS, ACTIVATIONS, grid((4, 2, 6), (4, 2, 6)))
    near = error_shares(WEIGHTS, ACTIVATIONS, grid((4, 2, 6), (4, 2, 6), (880.0, 150.0)))
    assert near == same
