"""Balances of channels against their formulas."""

import pytest
import torch

from planner.learned.balance import balance_smoothing, spearman


def make():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 10, generator=generator), torch.randn(6, 10, generator=generator)


def normalised(values):
    return values / values.log().mean().exp()


def test_the_equivalent_scale_is_a_power_of_the_largest_magnitudes():
    maxima, weight = make()
    expected = (maxima.amax(0) / weight.abs().amax(0)) ** 0.3
    found = balance_smoothing("passionsr", maxima, weight)
    torch.testing.assert_close(found, normalised(expected))


def test_salience_weighs_timesteps_by_how_little_they_agree_with_the_weight():
    maxima, weight = make()
    of_weight = weight.abs().amax(0)
    maxima[0] = of_weight  # agrees wholly
    maxima[1] = 1 / of_weight  # the opposite
    rho = [float(spearman(at_step, of_weight)) for at_step in maxima]
    assert rho[:2] == pytest.approx([1, -1])
    weights = torch.softmax(-torch.tensor(rho), 0)
    assert weights[1] > weights[0]
    expected = ((weights[:, None] * maxima).sum(0) / of_weight) ** 0.5
    found = balance_smoothing("salience", maxima, weight)
    torch.testing.assert_close(found, normalised(expected))


@pytest.mark.parametrize("balance", ["passionsr", "salience"])
def test_dead_channels_keep_1(balance):
    maxima, weight = make()
    maxima[:, 2] = 0
    weight[:, 5] = 0
    found = balance_smoothing(balance, maxima, weight)
    assert found[2] == found[5] == 1
    assert bool(torch.isfinite(found).all())
    assert torch.equal(balance_smoothing(balance, maxima * 0, weight), torch.ones(10))


def test_ranks_alone_decide_the_correlation():
    a = torch.tensor([1.0, 5.0, 2.0, 9.0])
    assert float(spearman(a, a.exp())) == pytest.approx(1)
    assert float(spearman(a, torch.tensor([1.0, 2.0, 3.0, 4.0]))) == pytest.approx(0.8)
    assert float(spearman(a, torch.ones(4))) == 0
