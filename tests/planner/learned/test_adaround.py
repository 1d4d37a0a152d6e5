"""AdaRound against its definition (arXiv 2004.10568, Eq. 21 to 24)."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import encode_rows
from planner.learned.adaround import AdaRound, beta_at


def make(bits=4):
    residual = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0, 0.0])
    return residual, step, AdaRound(residual, step, bits)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_undecided_it_is_the_weight_and_decided_the_nearest_level(bits):
    residual, step, rounding = make(bits)
    assert torch.equal(rounding.codes()[:5], encode_rows(residual, step, bits)[:5])
    outermost = (2**bits - 1) / 2 * step[:, None]
    clipped = torch.minimum(torch.maximum(residual, -outermost), outermost)
    soft = rounding.weight(step, soft=True)
    assert torch.all((soft - clipped).abs() <= 0.01 * step[:, None] + 1e-5)


def test_up_is_the_rectified_sigmoid():
    _, _, rounding = make()
    with torch.no_grad():
        rounding.v.copy_(torch.linspace(-6, 6, rounding.v.numel()).reshape(rounding.v.shape))
    expected = torch.clamp(1.2 / (1 + torch.exp(-rounding.v)) - 0.1, 0, 1)
    torch.testing.assert_close(rounding.up(), expected)
    assert float(rounding.up().detach().min()) == 0
    assert float(rounding.up().detach().max()) == 1


def test_the_regulariser_drives_to_both_ends():
    _, _, rounding = make()
    h = rounding.up()
    expected = (1 - (2 * h - 1).abs() ** 3).mean()
    torch.testing.assert_close(rounding.undecided(3), expected)
    rounding.undecided(2).backward()
    inside = (rounding.v.detach().abs() > 1e-3) & (rounding.v.detach().abs() < 2)
    # A step against the gradient takes v further from 0.
    assert torch.all((rounding.v.grad.sign() == -rounding.v.detach().sign())[inside])
    with torch.no_grad():
        rounding.v.copy_(torch.where(rounding.v > 0, 9.0, -9.0))
    assert float(rounding.undecided(2).detach()) == 0
    step = torch.ones(6)
    assert torch.equal(rounding.weight(step, soft=True), rounding.weight(step, soft=False))


def test_beta_falls_from_20_to_2_after_the_warm_up():
    assert beta_at(0.1) is None
    assert beta_at(0.2) == 20
    assert beta_at(0.6) == pytest.approx(11)
    assert beta_at(1.0) == pytest.approx(2)
