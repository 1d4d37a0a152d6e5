"""Rounding in training is the rounding of packs and kernels, and gradients go through it."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import dequantize_rows, encode_rows, quantize_rows
from planner.learned.fake_quantization import fake_quantize, rounded_to
from planner.learned.tokens import TokenQuantizer


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", range(1, 9))
def test_values_are_those_of_the_codec(bits):
    values, scale = rows(5, 40), torch.tensor([0.05, 0.3, 1.0, 4.0, 0.0])
    expected = dequantize_rows(encode_rows(values, scale, bits), scale, bits)
    torch.testing.assert_close(fake_quantize(values, scale, bits), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
def test_tokens_find_their_step_as_the_codec_does(rule):
    values = rows(3, 7, 24)
    codes, scale = quantize_rows(values, 4, rule)
    expected = dequantize_rows(codes, scale, 4)
    torch.testing.assert_close(TokenQuantizer(rule)(values, 4), expected, rtol=1e-6, atol=1e-6)


def test_values_have_a_gradient_within_the_levels_and_none_beyond():
    values = torch.tensor([[0.1, -1.2, 3.0, -9.0]], requires_grad=True)
    fake_quantize(values, torch.tensor([1.0]), 2).sum().backward()
    assert values.grad.tolist() == [[1, 1, 0, 0]]


def test_a_step_learns_from_what_it_clips_and_from_what_it_rounds():
    scale = torch.tensor([1.0], requires_grad=True)
    fake_quantize(torch.tensor([[9.0]]), scale, 2).sum().backward()
    assert float(scale.grad) == 1.5  # the outermost level
    scale.grad = None
    fake_quantize(torch.tensor([[0.9]]), scale, 2).sum().backward()
    assert float(scale.grad) == pytest.approx(0.5 - 0.9)  # LSQ, Eq. 3: level minus value


def test_what_is_rounded_elsewhere_keeps_its_gradient():
    values = rows(6).requires_grad_()
    rounded = rounded_to(values, values.bfloat16().float())
    assert torch.equal(rounded, values.detach().bfloat16().float())
    rounded.sum().backward()
    assert torch.equal(values.grad, torch.ones(6))
