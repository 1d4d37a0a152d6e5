"""The layer in plain torch, from plain tensors: what `benchmarks.gpu_check` holds the kernels to.

Equal to `runtime.backends.reference` bit for bit, which a test shows; it stands here because the
reference needs packages that a machine with nothing but torch and Triton may lack.
"""

import torch
from torch import Tensor

from runtime.backends.triton.linear import LayerTensors
from runtime.backends.triton.scale_rule import ScaleRule, step_for


def rotate(layer: LayerTensors, x: Tensor) -> Tensor:
    """Smoothed, signed and rotated tokens, float32 [..., in]."""
    z = x if layer.smoothing is None else x / layer.smoothing
    return layer.rotation.apply(z, layer.signs)


def quantize(
    z: Tensor, bits: int, rule: ScaleRule, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes uint8 [..., in] and scales float32 [...] of rotated tokens.

    Args:
        z: float32 [..., in].
        bits: of a code, 1 ... 8.
        rule: how a token's scale is found.
        scale: scales to use instead.
    """
    if scale is None:
        size = z.square().mean(-1).sqrt() if rule == "gaussian" else z.abs().amax(-1)
        scale = size * step_for(rule, bits)
    divisor = torch.where(scale > 0, scale, torch.inf)[..., None]
    codes = (z / divisor + 2 ** (bits - 1)).floor_().clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8), scale


def doubled_product(codes: Tensor, bits: int, weight: Tensor, weight_bits: int) -> Tensor:
    """Exact product of doubled levels, float64 [tokens, out]; operands are codes, uint8."""
    a = 2 * codes.double() - (2**bits - 1)
    w = 2 * weight.double() - (2**weight_bits - 1)
    return a @ w.T


def factor_product(layer: LayerTensors, z: Tensor) -> Tensor:
    """``(SVD-G + SVD-L) z`` for rotated tokens float32 [tokens, in]."""
    y = z.new_zeros(z.shape[0], len(layer.scale))
    if layer.global_up is not None and layer.global_down is not None:
        y += (z @ layer.global_down.to(z).T) @ layer.global_up.to(z).T
    if layer.local_up is not None and layer.local_down is not None:
        blocks = z.unflatten(1, (layer.local_down.shape[1], -1))  # [tokens, Q, s_i]
        inner = torch.einsum("tqj,pqj->tpq", blocks, layer.local_down.to(z))
        y += torch.einsum("tpq,pqi->tpi", inner, layer.local_up.to(z)).flatten(1)
    return y


def forward(layer: LayerTensors, x: Tensor, bits: int, rule: ScaleRule) -> Tensor:
    """The layer on ``x`` [tokens, in] -> [tokens, out] in the dtype of ``x``."""
    z = rotate(layer, x)
    codes, scale = quantize(z, bits, rule)
    product = doubled_product(codes, bits, layer.codes, layer.weight_bits)
    y = product.float() * (scale[:, None] / 2) * (layer.scale / 2) + factor_product(layer, z)
    if layer.bias is not None:
        y += layer.bias.float()
    return y.to(x.dtype)
