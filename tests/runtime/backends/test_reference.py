"""The reference backend against the pack's decoder: integers exactly, floats within rounding."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
from runtime.backends import BACKENDS, select_backend
from runtime.backends.reference import ReferenceLinear, integer_product
from schemas.errors import UsageError
from tests.artifacts.make_pack import random_weight

# One float32 product of k terms is off by at most about k * 2^-24 of the sum of magnitudes; three
# of them are added, and errors of random sign grow like sqrt(k): 96 terms stay well under 1e-5.
RELATIVE = 1e-5


def expected(weight, x, bits):
    """The format's meaning, in float64: decoded residual times quantized z, plus the factors."""
    z = weight.rotation.apply(x.float(), weight.signs)
    if bits == 16:
        quantized = z.double()
    else:
        codes, scale = quantize_rows(z, bits)
        quantized = dequantize_rows(codes, scale, bits).double()
    y = quantized @ weight.residual(torch.float64).T
    y = y + z.double() @ weight.low_rank(torch.float64).T
    return y if weight.bias is None else y + weight.bias.double()


def relative_error(actual, reference):
    return float((actual.double() - reference).norm() / reference.norm())


@pytest.mark.parametrize("bits", [*range(1, 9), 16])
@pytest.mark.parametrize("weight_bits", range(1, 9))
def test_layer_equals_the_decoder_for_every_bit_pair(weight_bits, bits):
    weight = random_weight("layer", 40, 96, bits=weight_bits)
    layer = ReferenceLinear(weight, "gaussian")
    x = torch.randn(7, 96, generator=torch.Generator().manual_seed(bits))
    assert relative_error(layer(x, bits), expected(weight, x, bits)) < RELATIVE


def test_unquantized_activations_give_the_decoded_weight():
    weight = random_weight("layer", 40, 96)
    x = torch.randn(5, 96)
    plain = x.double() @ weight.decode().T + weight.bias.double()
    assert relative_error(ReferenceLinear(weight, "gaussian")(x, 16), plain) < RELATIVE


@settings(deadline=None, max_examples=40)
@given(
    a_bits=st.integers(1, 8),
    w_bits=st.integers(1, 8),
    inner=st.integers(1, 700),
    seed=st.integers(0, 2**16),
)
def test_integer_product_is_exact(a_bits, w_bits, inner, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(2**a_bits, (3, inner), generator=generator).to(torch.uint8)
    w = torch.randint(2**w_bits, (5, inner), generator=generator).to(torch.uint8)
    a[0], w[0] = 2**a_bits - 1, 2**w_bits - 1  # saturated rows give the largest possible sum
    product = integer_product(a, a_bits, w, w_bits)
    odd_a = 2 * a.long() - (2**a_bits - 1)
    odd_w = 2 * w.long() - (2**w_bits - 1)
    assert torch.equal(product.long(), odd_a @ odd_w.T)
    assert torch.equal(product, product.round())


def test_shapes_dtypes_and_strides_of_the_input():
    weight = random_weight("layer", 24, 96, rank=0, block=None)
    layer = ReferenceLinear(weight, "gaussian")
    x = torch.randn(2, 3, 96)
    flat = layer(x.reshape(6, 96), 4)
    torch.testing.assert_close(layer(x, 4).reshape(6, 24), flat)
    strided = torch.randn(2, 96, 3).transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(layer(strided, 4), layer(strided.contiguous(), 4))
    assert layer(x.bfloat16(), 4).dtype == torch.bfloat16
    assert layer(x[:, :0], 4).shape == (2, 0, 24)


def test_a_zero_token_gives_the_bias():
    weight = random_weight("layer", 24, 96)
    x = torch.randn(3, 96)
    x[1] = 0
    y = ReferenceLinear(weight, "gaussian")(x, 4)
    assert torch.equal(y[1], weight.bias.float())


def test_a_weight_without_bias_or_signs():
    weight = replace(random_weight("layer", 24, 96, signs=False), bias=None)
    x = torch.randn(3, 96)
    y = ReferenceLinear(weight, "gaussian")(x, 5)
    assert relative_error(y, expected(weight, x, 5)) < RELATIVE


def test_a_value_that_is_not_finite_names_the_layer():
    layer = ReferenceLinear(random_weight("blocks.3.ff", 24, 96), "gaussian")
    with pytest.raises(ValueError, match=r"layer blocks\.3\.ff: .*not finite"):
        layer(torch.full((2, 96), torch.inf), 4)


def test_backends_are_chosen_by_name():
    cpu = torch.device("cpu")
    assert select_backend("reference", cpu).name == "reference"
    assert select_backend("auto", cpu).name in BACKENDS
    with pytest.raises(UsageError, match="no backend 'fpga'") as caught:
        select_backend("fpga", cpu)
    assert "reference" in caught.value.hint


def test_a_backend_the_machine_lacks_is_refused_by_name_and_passed_over_by_auto(monkeypatch):
    lacking = replace(BACKENDS["reference"], name="fast", missing=lambda device: "no such unit")
    table = {"fast": lacking, "reference": BACKENDS["reference"]}
    monkeypatch.setattr("runtime.backends.BACKENDS", table)
    cpu = torch.device("cpu")
    with pytest.raises(UsageError, match="no such unit"):
        select_backend("fast", cpu)
    assert select_backend("auto", cpu).name == "reference"


@pytest.mark.parametrize("bits", [4, 16])
def test_8_bit_factors_add_what_they_decode_to(bits):
    weight = random_weight("layer", 40, 96, factor_bits=8)
    layer, x = ReferenceLinear(weight, "gaussian"), torch.randn(7, 96)
    z = layer.rotation.apply(x, layer.signs)
    expected = z @ weight.low_rank().T
    torch.testing.assert_close(layer.factor_product(z), expected, rtol=1e-4, atol=1e-5)
    whole = layer.residual_product(layer.prepare(x, bits)) + expected + weight.bias.float()
    torch.testing.assert_close(layer(x, bits), whole, rtol=1e-4, atol=1e-5)
