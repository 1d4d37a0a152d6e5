"""A quantized layer whose free choices can be learned, and folded back into what a pack holds.

    weight = Q(H(W s) - U V - local + step F1 F2) + U V + local,    input H(x / s)

with H the layer's rotation. ``Q`` rounds with a step per row. Learned are, each or not: the steps;
the factors ``U V``; the update ``F1 F2``, low-rank and inside the rounding, in units of a step; and
the smoothing ``s``. Steps and smoothing are learned as logarithms. All of it but U V and the local
factors, which a pack stores as they are, becomes codes and steps (QArtSR, arXiv 2503.05584: its
phi is 1 / s, its L1 L2 is U V).
"""

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.factor_pair import FactorPair, global_product, local_product, store_factors
from artifacts.codec.gaussian_quantizer import encode_rows
from artifacts.codec.quantized_weight import QuantizedWeight
from planner.learned.fake_quantization import fake_quantize, fake_quantize_tokens, rounded_to
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

LearnedPart = Literal["steps", "factors", "rounding", "smoothing"]
LEARNED_PARTS: tuple[LearnedPart, ...] = get_args(LearnedPart)


@dataclass(frozen=True)
class Trainable:
    """One tensor to learn.

    Attributes:
        part: what it belongs to.
        tensor: the parameter.
        unit: what counts as a change of size 1: its learning rate is in these units.
    """

    part: LearnedPart
    tensor: nn.Parameter
    unit: float


class LearnedLinear(QuantizableLinear):
    """A linear layer, quantized or, while ``active`` is false, as it was.

    Args:
        start: the layer as a pack has it.
        weight: of the unquantized layer, [out, in].
        bias: likewise, [out], or None.
        activation_scale: how tokens find their step.
        parts: what is learned; ``smoothing`` where the pack smooths only, ``factors`` where it has
            global ones.
        update_rank: of F1 F2.
        seed: of F2's start; F1 starts at 0, so that the layer starts as the pack has it.
    """

    def __init__(
        self,
        start: QuantizedWeight,
        weight: Tensor,
        bias: Tensor | None,
        activation_scale: ScaleRule,
        *,
        parts: Collection[LearnedPart],
        update_rank: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.name, self._start, self._rule = start.name, start, activation_scale
        self.active = True
        self.weight_bits, self.rotation = start.weight_bits, start.rotation
        self.weight: Tensor
        self.bias: Tensor | None
        self.signs: Tensor | None
        self.local: Tensor | None
        local = start.local_factors
        for name, constant in {
            "weight": weight.float(),
            "bias": None if bias is None else bias.float(),
            "signs": start.signs,
            "first_step": start.scale,
            "first_smoothing": start.smoothing,
            "local": None if local is None else local_product(local),
        }.items():
            self.register_buffer(name, constant, persistent=False)
        rows, columns = weight.shape
        generator = torch.Generator().manual_seed(seed)

        def learned(part: LearnedPart, value: Tensor | None) -> nn.Parameter | None:
            if value is None:
                return None
            return nn.Parameter(value.float().clone(), requires_grad=part in parts)

        up, down = _as_floats(start.global_factors)
        # Of the start, so that a run that goes on has the rates that it had.
        self._units = {
            name: float(factor.square().mean().sqrt()) or 1.0
            for name, factor in (("up", up), ("down", down))
            if factor is not None
        }
        has_update = "rounding" in parts and update_rank > 0
        self.log_step = learned("steps", torch.zeros(rows))
        self.up, self.down = learned("factors", up), learned("factors", down)
        self.update_up = learned("rounding", torch.zeros(rows, update_rank) if has_update else None)
        self.update_down = learned(
            "rounding",
            torch.randn(update_rank, columns, generator=generator) / update_rank**0.5
            if has_update
            else None,
        )
        smooths = start.smoothing is not None
        self.log_smoothing = learned("smoothing", torch.zeros(columns) if smooths else None)

    def trainables(self) -> Iterator[Trainable]:
        """What is learned here."""
        for part, name in (
            ("steps", "log_step"),
            ("factors", "up"),
            ("factors", "down"),
            ("rounding", "update_up"),
            ("rounding", "update_down"),
            ("smoothing", "log_smoothing"),
        ):
            tensor = getattr(self, name)
            if tensor is not None and tensor.requires_grad:
                yield Trainable(part, tensor, self._units.get(name, 1.0))  # type: ignore[arg-type]

    def share_key(self, bits: int) -> Hashable:
        """Nothing is shared: every layer learns for itself."""
        return (self.name, bits)

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        """``x`` as it is: what is done with it is learned."""
        return PreparedInput(x, None, None, bits, x.dtype)

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """The layer on an input [..., in] with activations of its bits -> [..., out]."""
        x, bits = prepared.values, prepared.bits
        if not self.active:
            return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias)
        smoothing = self._smoothing()
        z = x.float() if smoothing is None else x.float() / smoothing
        z = self.rotation.apply(z, self.signs)
        quantized = z if bits == UNQUANTIZED else fake_quantize_tokens(z, bits, self._rule)
        factors = self._factors()
        residual = self._residual(smoothing, None if factors is None else factors[0] @ factors[1])
        y = F.linear(quantized, fake_quantize(residual, self._step(), self.weight_bits))
        if factors is not None:
            y = y + F.linear(F.linear(z, factors[1]), factors[0])
        if self.local is not None:
            y = y + F.linear(z, self.local)
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    @torch.no_grad()
    def folded(self) -> QuantizedWeight:
        """The layer as a pack holds it; on the CPU."""
        stored = self._stored_factors()
        product = None if stored is None else global_product(stored).to(self.weight)
        smoothing, step = self._smoothing(), self._step().cpu()
        codes = encode_rows(self._residual(smoothing, product).cpu(), step, self.weight_bits)
        return replace(
            self._start,
            codes=pack_codes(codes, self.weight_bits),
            scale=step,
            global_up=None if stored is None else stored.up,
            global_down=None if stored is None else stored.down,
            global_scale=None if stored is None else stored.scale,
            smoothing=None if smoothing is None else smoothing.cpu(),
        )

    def _stored_factors(self) -> FactorPair | None:
        """U and V as a pack stores them: to the bit as they were, where they were not learned."""
        old = self._start.global_factors
        if old is None or self.up is None or self.down is None or not self.up.requires_grad:
            return old
        pair = store_factors(self.up.detach().cpu().T, self.down.detach().cpu(), old.bits)
        return FactorPair(pair.up.T.contiguous(), pair.down, pair.scale)

    def _smoothing(self) -> Tensor | None:
        first: Tensor | None = self.first_smoothing  # type: ignore[assignment]
        if first is None or self.log_smoothing is None:
            return first
        return first * self.log_smoothing.exp()

    def _step(self) -> Tensor:
        assert self.log_step is not None
        first: Tensor = self.first_step  # type: ignore[assignment]
        return first * self.log_step.exp()

    def _factors(self) -> tuple[Tensor, Tensor] | None:
        """U [out, r] and V [r, in], in bfloat16 as they will be stored.

        Where a pack has 8 bits of them they are not rounded here: `folded` rounds them before the
        codes are made, which take up what that leaves.
        """
        if self.up is None or self.down is None:
            return None
        up, down = self.up, self.down
        if self._start.factor_bits != UNQUANTIZED:
            return up, down
        return rounded_to(up, up.bfloat16().float()), rounded_to(down, down.bfloat16().float())

    def _residual(self, smoothing: Tensor | None, product: Tensor | None) -> Tensor:
        """What is rounded, [out, in] in the rotated domain, beside U V = ``product``."""
        smoothed = self.weight if smoothing is None else self.weight * smoothing
        residual = self.rotation.apply(smoothed, self.signs)
        for branch in (product, self.local):
            if branch is not None:
                residual = residual - branch
        if self.update_up is not None and self.update_down is not None:
            residual = residual + self._step()[:, None] * (self.update_up @ self.update_down)
        return residual


def _as_floats(pair: FactorPair | None) -> tuple[Tensor | None, Tensor | None]:
    """U [out, r] and V [r, in] of SVD-G in float32, the scales shared between them."""
    if pair is None:
        return None, None
    up, down = pair.up.float(), pair.down.float()
    if pair.scale is None:
        return up, down
    root = pair.scale.float().sqrt()
    return up * root, down * root[:, None]
