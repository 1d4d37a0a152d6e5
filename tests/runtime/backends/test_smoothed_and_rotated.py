"""A layer that is smoothed and then rotated, as the planner makes it, on every way to compute one.

Order: inputs are divided by the vector, then signed, then rotated; the weight was multiplied by it
before signs and rotation.
"""

from functools import partial

import pytest
import torch

from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.layer import quantize_layer
from runtime.backends.cpu.int8_weight import inexact_reason
from runtime.backends.cpu.kernels import VARIANTS, WITHOUT, Kernels, load_variant
from runtime.backends.cpu.linear import CpuLinear
from runtime.backends.cpu.native_linear import NativeLinear
from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton.linear import TritonLinear
from tests.runtime.triton_device import DEVICE

OUT, IN, TOKENS = 24, 64, 20
LAST_BITS = 1e-6
"""Sums are integers and alike; they are scaled in one order or another. A code that moved by one
would show a thousand times as much."""


def ways():
    """(weight, rule) -> layer, by name."""
    found = {f"triton {kind}": partial(TritonLinear, residency=kind) for kind in ("int8", "packed")}
    if inexact_reason() is None:
        found[WITHOUT] = CpuLinear
    for variant in VARIANTS:
        kernels = load_variant(variant)
        if isinstance(kernels, Kernels):
            found[variant] = partial(NativeLinear, kernels=kernels)
    return found


every_way = pytest.mark.parametrize("make", ways().values(), ids=ways().keys())


def made(bits, *, ranks=(0, 0), smoothing=None):
    """A layer of the planner's, and the weight that it stands for."""
    generator = torch.Generator().manual_seed(bits)
    weight = 0.05 * torch.randn(OUT, IN, generator=generator)
    settings = BuildSettings(
        parse_target("W4A4"), global_rank=ranks[0], local_rank=ranks[1], smoothing="balance"
    )
    return quantize_layer("l", weight, None, bits, settings, smoothing=smoothing).weight, weight


def exact_vector():
    """Powers of two: what they divide stays exact."""
    return 2.0 ** torch.randint(-2, 3, (IN,), generator=torch.Generator().manual_seed(1))


def exact_inputs():
    """Whole numbers. A Hadamard matrix of size 64 has entries of 1/8, so the rotated ones are exact
    too, in whatever order they are summed up."""
    return torch.randint(-9, 10, (TOKENS, IN), generator=torch.Generator().manual_seed(2)).float()


@every_way
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 8), (4, 4), (5, 3), (8, 2)])
def test_sums_are_the_references(make, weight_bits, activation_bits):
    weight, _ = made(weight_bits, smoothing=exact_vector())
    assert weight.signs is not None
    assert not weight.rotation.is_identity
    layer, x = make(weight, "gaussian"), exact_inputs()
    if isinstance(layer, TritonLinear):
        layer, x = layer.to(DEVICE), x.to(DEVICE)
    found = layer(x, activation_bits).cpu()
    expected = ReferenceLinear(weight, "gaussian")(x.cpu(), activation_bits)
    torch.testing.assert_close(
        found, expected, rtol=LAST_BITS, atol=LAST_BITS * float(expected.abs().max())
    )


def test_the_reference_divides_then_signs_then_rotates():
    weight, source = made(8, smoothing=exact_vector())
    x = exact_inputs()
    prepared = ReferenceLinear(weight, "gaussian").prepare(x, 16).values
    by_hand = x / weight.smoothing * weight.signs @ weight.rotation.dense().float()
    torch.testing.assert_close(prepared, by_hand)
    turned = source * weight.smoothing * weight.signs @ weight.rotation.dense().float()
    torch.testing.assert_close(prepared @ turned.T, x @ source.T, rtol=1e-4, atol=1e-4)


@every_way
def test_factors_read_the_smoothed_and_rotated_input_too(make):
    weight, source = made(8, ranks=(4, 2), smoothing=torch.linspace(0.4, 2.5, IN))
    layer, x = make(weight, "gaussian"), exact_inputs()
    if isinstance(layer, TritonLinear):
        layer, x = layer.to(DEVICE), x.to(DEVICE)
    exact = x.cpu() @ source.T
    found = layer(x, 16).cpu()
    # 8 bits of weights: 40 dB.
    assert float((found - exact).norm() / exact.norm()) < 0.02
