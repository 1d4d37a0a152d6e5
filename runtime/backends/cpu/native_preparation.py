"""A layer's input made ready by the compiled kernels: one pass over every token.

Smoothing, signs, rotation, token scale and codes, in float32, whatever computes the rest.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import StepRule, step_rule
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.arguments import PrepareArguments
from runtime.backends.cpu.kernels import Kernels, address, threads
from runtime.backends.cpu.scratch import scratch
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

_SLICE_VALUES = 2**17
"""Values that one thread takes at a time: 512 KiB of float32, in a second-level cache."""
_PALEY_ORDERS = {"paley12": 12, "paley20": 20}


class PreparedRows(NamedTuple):
    """Tokens [tokens, in_features], ready.

    Attributes:
        rotated: float32 [tokens, in_features], or None where nobody asked for it.
        codes: uint8 of the same shape, or None with unquantized activations.
        scale: float32 [tokens], likewise.
    """

    rotated: Tensor | None
    codes: Tensor | None
    scale: Tensor | None


class NativePreparation:
    """What a layer does with its input alone.

    Args:
        weight: the layer's record.
        activation_scale: how a token's scale is found.
        kernels: the variant that computes it.
    """

    def __init__(
        self, weight: QuantizedWeight, activation_scale: ScaleRule, kernels: Kernels
    ) -> None:
        self._name, self._rotation = weight.name, weight.rotation
        self._rule, self._kernels = activation_scale, kernels
        self._token_step = weight.token_step
        self._gain = torch.full((weight.in_features,), 1 / math.sqrt(weight.rotation.block_size))
        if weight.signs is not None:
            self._gain *= weight.signs
        if weight.smoothing is not None:
            self._gain /= weight.smoothing

    def __call__(self, x: Tensor, bits: int, *, keep_rotated: bool) -> PreparedRows:
        """Prepare ``x`` [tokens, in_features], of any dtype.

        Args:
            x: tokens.
            bits: of the codes, 1 ... 8, or `UNQUANTIZED` for none.
            keep_rotated: whether the rotated tokens are wanted too.

        Raises:
            RuntimeError: ``x`` asks for a gradient, which the kernels do not have.
            ValueError: a value is not finite; the message names the layer.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"layer {self._name}: compiled kernels cannot be differentiated")
        if x.dtype not in (torch.float32, torch.bfloat16):
            x = x.float()
        if x.stride(1) != 1:
            x = x.contiguous()
        codes = scale = None
        if bits != UNQUANTIZED:
            codes, scale = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x))
        if keep_rotated:
            rotated = torch.empty(x.shape)
            self._prepare(x, bits, rotated, codes, scale)
            return PreparedRows(rotated, codes, scale)
        # Rotated tokens that nobody wants stay in the cache, slice by slice.
        rows = max(1, _SLICE_VALUES * threads() // x.shape[1])
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            there = x[part]
            self._prepare(
                there,
                bits,
                scratch(there.numel())[0].view(there.shape),
                None if codes is None else codes[part],
                None if scale is None else scale[part],
            )
        return PreparedRows(None, codes, scale)

    def _prepare(
        self, x: Tensor, bits: int, rotated: Tensor, codes: Tensor | None, scale: Tensor | None
    ) -> None:
        if self._kernels.prepare(self._arguments(x, bits, rotated, codes, scale)) >= 0:
            raise ValueError(
                f"layer {self._name}: a value is not finite, or too large for a float32 scale"
            )

    def _arguments(
        self, x: Tensor, bits: int, rotated: Tensor, codes: Tensor | None, scale: Tensor | None
    ) -> PrepareArguments:
        quantized = bits != UNQUANTIZED
        step = StepRule(0.0, 0.0)
        if quantized:
            step = step_rule(self._rule, bits, self._token_step)
        return PrepareArguments(
            input=address(x),
            input_stride=x.stride(0),
            gain=address(self._gain),
            rotated=address(rotated),
            codes=address(codes),
            scale=address(scale),
            tokens=len(x),
            size=x.shape[1],
            block=self._rotation.block_size,
            paley_order=_PALEY_ORDERS.get(self._rotation.construction, 1),
            bits=bits if quantized else 0,
            root_mean_square_gain=step.of_rms,
            absmax_gain=step.of_peak,
            is_bfloat16=x.dtype == torch.bfloat16,
            threads=threads(),
        )
