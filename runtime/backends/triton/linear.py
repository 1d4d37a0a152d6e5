"""The quantized layer on CUDA: a preparing kernel, a low-rank product and the integer product.

The same sums as the reference's (`runtime.backends.reference`). Integer products are equal, bit for
bit; codes are, but where a rotated value lies within float32 rounding of the border of two levels.
With 16-bit inputs the factor branches multiply 16-bit operands and add in float32.

What a result may differ by, relative to the size of a layer's output: float32 inputs 2^-24 sqrt(K)
per sum, well under 1e-5; bfloat16 inputs 2^-9 for the operands of the low-rank product (its
activations, and rotated tokens or folded ``down``) and 2^-9 for the result's own rounding, which
the reference has too.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.input_key import input_key
from runtime.backends.triton import compiled_ops
from runtime.backends.triton.factors import Factors, Fold
from runtime.backends.triton.resident import (
    Residency,
    ResidentCodes,
    doubled_offsets,
    make_resident,
    signed_codes,
)
from runtime.backends.triton.rotation_plan import RotationPlan, check_row, plan_for
from runtime.network.finite_watch import is_capturing, number_of, raise_if_seen
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

LARGEST_IN_FEATURES = 32767
"""Most inputs whose doubled product fits 32 bits."""


@dataclass(frozen=True)
class CentredInput(PreparedInput):
    """A prepared input whose codes are int8 and have 2^(bits - 1) taken off.

    Attributes:
        sums: of a token's codes, int32 [...]; None with unquantized activations.
    """

    sums: Tensor | None = None

    def first(self, tokens: int) -> "CentredInput":
        """The same of the first ``tokens`` along the last but one dimension."""
        return replace(
            self,
            values=self.values[..., :tokens, :],
            codes=None if self.codes is None else self.codes[..., :tokens, :],
            scale=None if self.scale is None else self.scale[..., :tokens],
            sums=None if self.sums is None else self.sums[..., :tokens],
        )


class TritonLinear(QuantizableLinear):
    """A quantized linear layer.

    ``values`` of a prepared input is the layer's input, or, for quantized activations and compact
    factors, the rotated one in the same dtype.

    Args:
        weight: the layer's record.
        activation_scale: how a token's scale is found.
        residency: how the weight lies in memory: ``int8`` is fastest, ``packed`` smallest.

    Raises:
        ValueError: more inputs than the kernels hold.
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

    can_be_captured = True
    scale: Tensor
    offsets: Tensor
    high: Tensor
    low: Tensor | None
    bias: Tensor | None

    def __init__(
        self, weight: QuantizedWeight, activation_scale: ScaleRule, residency: Residency
    ) -> None:
        super().__init__()
        if weight.in_features > LARGEST_IN_FEATURES:
            raise ValueError(f"{weight.in_features} inputs: 32-bit sums hold {LARGEST_IN_FEATURES}")
        check_row(weight.rotation)
        self.name = weight.name
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self.weight_bits = weight.weight_bits
        self.activation_scale, self.token_step = activation_scale, weight.token_step
        self.residency = residency
        self._fault = number_of(weight.name)
        self._handle = compiled_ops.register(self)
        self._share_number = _share_number((input_key(weight, activation_scale), residency))
        self._rotation = weight.rotation
        self._signs, self._smoothing = weight.signs, weight.smoothing
        self._plan: tuple[torch.device, RotationPlan] | None = None

        codes = weight.unpacked_codes()
        resident = make_resident(codes, weight.weight_bits, residency)
        self._planes = (resident.high_bits, resident.low_bits, resident.sum_factor)
        constants = {
            "high": resident.high,
            "low": resident.low,
            "scale": weight.scale,
            "offsets": doubled_offsets(codes, weight.weight_bits),
            "bias": weight.bias,
        }
        for name, value in constants.items():  # as buffers, they move with the module
            self.register_buffer(name, value, persistent=False)
        self.factors = None
        branches = (weight.global_factors, weight.local_factors)
        if any(branch is not None for branch in branches):
            fold = Fold(weight.rotation, weight.signs, weight.smoothing)
            self.factors = Factors(*branches, fold if residency == "int8" else None)

    @property
    def resident_bytes(self) -> int:
        """Memory of everything the layer does not share with others."""
        own = sum(buffer.nbytes for buffer in self.buffers(recurse=False))
        return own + (0 if self.factors is None else self.factors.bytes)

    def share_key(self, bits: int) -> Hashable:
        """Rotation, signs, smoothing, scale rule, bits, and which form of factors reads it."""
        return (self._share_number, bits)

    def prepare(self, x: Tensor, bits: int) -> CentredInput:
        """Smooth, rotate and quantize ``x`` [..., in_features].

        Raises:
            ValueError: a value is not finite; the message names the layer. While a CUDA graph is
                being captured, whoever replays it has to ask `finite_watch`.
        """
        if bits == UNQUANTIZED:
            return CentredInput(x, None, None, bits, x.dtype)
        if torch.compiler.is_compiling():
            codes, scale, sums, rotated = compiled_ops.prepare(x, self._handle, bits)
        else:
            codes, scale, sums, rotated = self.quantized(x, bits)
        # Layers that share an input share its rotated tokens, whether or not all have factors.
        values = rotated if self.residency == "packed" else x
        return CentredInput(values, codes, scale, bits, x.dtype, sums)

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """Integer product, factor branches and bias -> [..., out_features].

        Raises:
            TypeError: the input was prepared by another backend.
        """
        if not isinstance(prepared, CentredInput):
            raise TypeError(f"layer {self.name}: an input that another backend prepared")
        if prepared.codes is None or prepared.scale is None or prepared.sums is None:
            if torch.compiler.is_compiling():
                return compiled_ops.unquantized(prepared.values, self._handle)
            return self.unquantized(prepared.values)
        parts = (prepared.values, prepared.codes, prepared.scale, prepared.sums)
        if torch.compiler.is_compiling():
            return compiled_ops.apply(*parts, self._handle)
        return self.finished(*parts)

    def quantized(self, x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `launch.prepare_tokens` returns; without rotated tokens an empty tensor for them."""
        from runtime.backends.triton.launch import prepare_tokens  # noqa: PLC0415 brings Triton

        codes, scale, sums, rotated = prepare_tokens(
            x,
            self._plan_on(x.device),
            bits,
            self.activation_scale,
            token_step=self.token_step,
            fault=self._fault,
            keep_rotated=self.residency == "packed",
        )
        if not is_capturing(x.device):
            raise_if_seen(x.device)
        return codes, scale, sums, x.new_empty(0) if rotated is None else rotated

    def finished(self, values: Tensor, codes: Tensor, scale: Tensor, sums: Tensor) -> Tensor:
        """`apply_to` on the parts of a prepared input -> [..., out_features]."""
        from runtime.backends.triton import launch  # noqa: PLC0415 brings Triton

        factors = self.factors
        return launch.product(
            codes,
            scale,
            sums,
            self.resident_codes(),
            self.offsets,
            self.scale,
            factors=factors,
            low_rank=None if factors is None else launch.low_rank_activations(values, factors),
            bias=self.bias,
            dtype=values.dtype,
        )

    def doubled_product(self, prepared: CentredInput) -> Tensor:
        """The integer product alone, as `reference.integer_product`: int32 [..., out_features].

        Raises:
            ValueError: the input's activations are not quantized.
        """
        from runtime.backends.triton import launch  # noqa: PLC0415 brings Triton

        if prepared.codes is None or prepared.scale is None or prepared.sums is None:
            raise ValueError(f"layer {self.name}: unquantized activations have no integer product")
        return launch.product(
            prepared.codes,
            prepared.scale,
            prepared.sums,
            self.resident_codes(),
            self.offsets,
            self.scale,
            raw=True,
        )

    def resident_codes(self) -> ResidentCodes:
        """The weight's codes where the module's buffers are now."""
        return ResidentCodes(self.high, self.low, *self._planes)

    def unquantized(self, x: Tensor) -> Tensor:
        """The layer with activations as they are, for calibration: float32 until the last cast."""
        values = x.float()
        z = values if self._smoothing is None else values / self._smoothing.to(values.device)
        z = self._rotation.apply(z, self._signs)  # moves the signs
        levels = (
            signed_codes(self.resident_codes(), self.weight_bits, self.in_features).float() + 0.5
        )
        y = (z @ levels.T) * self.scale
        if self.factors is not None:
            from runtime.backends.triton import launch  # noqa: PLC0415 brings Triton

            read = values if self.factors.folded else z
            low_rank = launch.low_rank_activations(read, self.factors)
            y = y + self.factors.up_product(low_rank).view(y.shape)
        if self.bias is not None:
            y = y + self.bias.float()
        return y.to(x.dtype)

    def _plan_on(self, device: torch.device) -> RotationPlan:
        if self._plan is None or self._plan[0] != device:
            plan = plan_for(self._rotation, self._signs, self._smoothing, device)
            self._plan = (device, plan)
        return self._plan[1]


def _share_number(key: Hashable) -> int:
    """A number for equal keys: compiled code compares those more easily."""
    return _SHARE_NUMBERS.setdefault(key, len(_SHARE_NUMBERS))


_SHARE_NUMBERS: dict[Hashable, int] = {}
