"""Simulated ideas: the codebook, and layers that compute what they say they simulate."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import gaussian_level
from benchmarks.quality.untaken import (
    SimulatedLinear,
    codebook,
    nearest,
    round_to_codebook,
    weights_by_codebook,
)
from planner.recipes import recipe_settings
from planner.target import parse_target
from planner.weights.layer import quantize_layer
from planner.weights.moment_root import MomentRoot
from runtime.backends.reference import ReferenceLinear

SETTINGS = recipe_settings("q-dit4sr-no-vatmp", parse_target("W3A4"), global_rank=4, local_rank=2)
WEIGHT = torch.randn(48, 64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(20, 64, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 65)


def layer(kind, **switches):
    made = quantize_layer("a", WEIGHT, None, 3, SETTINGS).weight
    return type("Variant", (kind,), switches)(made, "gaussian")


@pytest.mark.parametrize(("bits", "least"), [(2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_the_codebook_is_max_s(bits, least):
    """Mean squared errors of Max (1960), Table I, but for what rounding to integers costs."""
    levels = codebook(bits)
    assert torch.equal(levels, -levels.flip(0))
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(bits))
    step = gaussian_level(bits).step
    error = (levels[nearest(x / step, bits)] * step - x).square().mean()
    assert float(error) == pytest.approx(least, rel=0.01)
    assert float(error) < gaussian_level(bits).mse


def test_with_nothing_switched_on_it_is_the_reference():
    expected, got = layer(ReferenceLinear)(TOKENS, 4), layer(SimulatedLinear)(TOKENS, 4)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("switch", ["token_codebook", "without_subspace"])
def test_activations_err_less(switch):
    generator = torch.Generator().manual_seed(4)
    main = torch.linalg.svd(WEIGHT).Vh[:4]  # about what the global factors read
    tokens = torch.randn(200, 64, generator=generator)
    tokens += 2 * torch.randn(200, 4, generator=generator) @ main
    exact = layer(SimulatedLinear)(tokens, 16)
    plain, changed = layer(SimulatedLinear)(tokens, 4), layer(SimulatedLinear, **{switch: True})
    off = (changed(tokens, 4) - exact).square().sum()
    assert 0 < off < (plain - exact).square().sum()


def test_weights_are_rounded_to_the_codebook_and_read_by_it():
    rows = torch.randn(16, 32, generator=torch.Generator().manual_seed(3))
    root = MomentRoot.of(torch.eye(32) + 0.5)
    settings = recipe_settings("standard", parse_target("W3A4"))
    found = round_to_codebook(rows, 3, settings, root)
    decoded = codebook(3)[found.codes.long()] * found.scale[:, None]
    torch.testing.assert_close(found.squared_error, (decoded - rows).double().square().sum(1))
    with weights_by_codebook():
        made = layer(SimulatedLinear, weight_codebook=True)
    uniform = layer(SimulatedLinear)
    wanted = TOKENS @ WEIGHT.T
    assert (made(TOKENS, 16) - wanted).square().sum() < (
        uniform(TOKENS, 16) - wanted
    ).square().sum()
