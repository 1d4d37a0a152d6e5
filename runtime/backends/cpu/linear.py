"""The quantized layer on the CPU, fast: exact integer products, and as few passes as can be.

The same sums as the reference's (`runtime.backends.reference`), arranged for oneDNN:

- rotation, token scale and codes in float32, so that the codes are the reference's but where a
  value lies within float32 rounding of the border of two levels; by the compiled kernels where
  there are any (`native_preparation`), which is one pass instead of several;
- the product of codes in 8-bit integers (`int8_weight`), exactly;
- both factor branches as one low-rank product on the plain input (`low_rank`).

For bfloat16 inputs the products' results, the factor branches and the last sum are bfloat16 too,
each rounded once; otherwise they are float32.
"""

import math
from collections.abc import Hashable

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import step_rule
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.int8_weight import Int8Weight
from runtime.backends.cpu.kernels import Kernels
from runtime.backends.cpu.low_rank import FactorParts, LowRankProduct, low_rank_product
from runtime.backends.cpu.native_preparation import NativePreparation
from runtime.backends.cpu.rotation import CpuRotation
from runtime.backends.cpu.scratch import scratch
from runtime.backends.input_key import input_key
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

_SMALLEST_NORMAL = torch.finfo(torch.float32).smallest_normal
"""Numbers below it may have no finite reciprocal."""
_SLICE_VALUES = 2**18
"""Values that one thread takes at a time: 1 MiB of float32, in a second-level cache of 1 or 2."""


class CpuLinear(QuantizableLinear):
    """A quantized linear layer.

    Args:
        weight: the layer's record.
        activation_scale: how a token's scale is found.
        kernels: compiled ones that prepare inputs in one pass; None for torch's operations.
    """

    known_parts = frozenset(
        {
            "codes",
            "scale",
            "global_up",
            "global_down",
            "global_scale",
            "local_up",
            "local_down",
            "local_scale",
            "bias",
            "smoothing",
        }
    )

    def __init__(
        self,
        weight: QuantizedWeight,
        activation_scale: ScaleRule,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__()
        self.name = weight.name
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self.activation_scale, self.token_step = activation_scale, weight.token_step
        self._input_key = input_key(weight, activation_scale)
        self._rotation = CpuRotation.for_layer(weight.rotation, weight.signs, weight.smoothing)
        self._codes = Int8Weight(weight.unpacked_codes(), weight.weight_bits, weight.scale)
        self._half_step = weight.scale / 2
        self._preparation = (
            None if kernels is None else NativePreparation(weight, activation_scale, kernels)
        )
        self._parts = FactorParts.of(weight)
        self._low_rank: dict[torch.dtype, LowRankProduct | None] = {}  # when first asked for

    def share_key(self, bits: int) -> Hashable:
        """Rotation, signs, smoothing, scale rule and bits: all that `prepare` depends on."""
        return (self._input_key, bits)

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        """Smooth, rotate and quantize ``x`` [..., in_features]; ``values`` of the result is ``x``.

        Raises:
            ValueError: a value is not finite; the message names the layer.
        """
        flat = x.reshape(-1, self.in_features)
        values = flat.view(x.shape)
        if bits == UNQUANTIZED or not len(flat):
            return PreparedInput(values, None, None, bits, x.dtype)
        if self._preparation is not None:
            _, made, steps = self._preparation(flat, bits, keep_rotated=False)
            assert made is not None
            assert steps is not None
            return PreparedInput(
                values, made.view(x.shape), steps.view(x.shape[:-1]), bits, x.dtype
            )
        codes = torch.empty(flat.shape, dtype=torch.uint8)
        scale = torch.empty(len(flat), 1)
        # Slices that stay in the processor's cache: several passes over a large input cost more
        # than the product that follows.
        rows = max(1, _SLICE_VALUES * torch.get_num_threads() // self.in_features)
        for start in range(0, len(flat), rows):
            stop = start + rows
            self._quantize(flat[start:stop], bits, codes[start:stop], scale[start:stop])
        return PreparedInput(values, codes.view(x.shape), scale.view(x.shape[:-1]), bits, x.dtype)

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """Integer product, factor branches and bias -> [..., out_features]."""
        shape = (*prepared.values.shape[:-1], self.out_features)
        x = prepared.values.reshape(-1, self.in_features)
        if not len(x):
            return x.new_empty(shape)
        dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
        if prepared.codes is None or prepared.scale is None:
            y = self._unquantized(x)
        else:
            codes = prepared.codes.reshape(-1, self.in_features)
            y = self._codes.product(codes, prepared.bits, dtype)
            if self._codes.needs_token_sums:
                tokens, channels = self._codes.token_terms(codes, prepared.bits)
                y.addmm_(tokens.to(dtype), channels.to(dtype))
            y.mul_(prepared.scale.reshape(-1, 1).to(dtype))
            self._add_unquantized_part(y, x.to(dtype))
        return y.to(prepared.dtype).view(shape)

    def _quantize(self, x: Tensor, bits: int, codes: Tensor, scale: Tensor) -> None:
        """Rotate ``x`` [tokens, in_features] and write codes and scales [tokens, 1] of the result.

        As `artifacts.codec.gaussian_quantizer.quantize_rows`.
        """
        z = self._rotation(x, scratch(x.numel()))
        step = step_rule(self.activation_scale, bits, self.token_step)
        scale.zero_()
        if step.of_rms:
            norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            scale.add_(norm, alpha=step.of_rms / math.sqrt(self.in_features))
        if step.of_peak:
            peak = torch.linalg.vector_norm(z, ord=math.inf, dim=1, keepdim=True)
            scale.add_(peak, alpha=step.of_peak)
        lowest, highest = torch.aminmax(scale)
        if not math.isfinite(float(highest)):
            raise ValueError(
                f"layer {self.name}: a value is not finite, or too large for a float32 scale"
            )
        if float(lowest) < _SMALLEST_NORMAL:  # rows of zeros, or next to it
            z.div_(scale.masked_fill(scale == 0, math.inf))
        else:  # faster, and one rounding away from the quotient
            z.mul_(scale.reciprocal())
        z.add_(2 ** (bits - 1)).clamp_(0, 2**bits - 1)
        # Casts cut the fraction off, which is the floor of what is positive. Those to signed bytes
        # are several times faster, and have room for all codes of fewer than eight bits.
        (codes if bits == 8 else codes.view(torch.int8)).copy_(z)

    def _unquantized(self, x: Tensor) -> Tensor:
        """The layer with activations as they are, for calibration."""
        z = self._rotation(x)
        y = (z @ self._codes.odd_integers(torch.float32).T).mul_(self._half_step)
        self._add_unquantized_part(y, x.float())
        return y

    def _add_unquantized_part(self, y: Tensor, x: Tensor) -> None:
        """Add factor branches and bias for ``x`` to ``y`` [tokens, out_features] of one dtype."""
        if x.dtype not in self._low_rank:
            with torch.inference_mode(False):  # what is kept must serve callers of any mode
                made = low_rank_product(self._parts, self._rotation)
                self._low_rank[x.dtype] = None if made is None else made.to(x.dtype)
        low_rank, bias = self._low_rank[x.dtype], self._parts.bias
        if low_rank is not None:
            low_rank.add_to(y, x)
        elif bias is not None:
            y.add_(bias.to(x.dtype))
