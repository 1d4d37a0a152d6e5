"""A quantized layer whose free choices can be learned, and folded back into what a pack holds.

    weight = Q(H(W s) - U V - local + step (F1 F2 + D)) + U V + local,    input H(x / s)

with H the layer's rotation. ``Q`` rounds with a step per row, to the nearest level or as AdaRound
learns; where a pack's codes are not the nearest (GPTQ), weights begin on their levels. Learned are,
each or not, the parts of `LEARNED_PARTS`. Steps and smoothing are learned as logarithms, updates in
units of a step. What `FOLDED_PARTS` names becomes codes, steps, factors, smoothing and a factor on
the steps of tokens (QArtSR, arXiv 2503.05584: its phi is 1 / s, its L1 L2 is U V). A pack has no
place for the others: bounds of every timestep, Kronecker maps of inputs, groups. A network with
those is simulated.
"""

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.factor_pair import FactorPair, global_product, local_product, store_factors
from artifacts.codec.gaussian_quantizer import encode_rows, row_scales
from artifacts.codec.quantized_weight import QuantizedWeight
from planner.learned.adaround import AdaRound
from planner.learned.fake_quantization import fake_quantize, rounded_to
from planner.learned.kronecker import KroneckerMap
from planner.learned.tokens import Bounds, TokenQuantizer, in_groups
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

LearnedPart = Literal[
    "steps",
    "factors",
    "rounding",
    "smoothing",
    "weights",
    "adaround",
    "bounds",
    "timestep-bounds",
    "transform",
]
LEARNED_PARTS: tuple[LearnedPart, ...] = get_args(LearnedPart)
FOLDED_PARTS: tuple[LearnedPart, ...] = LEARNED_PARTS[:7]


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

    While it is in training mode, weights that AdaRound has not decided on lie between levels.

    Args:
        start: the layer as a pack has it.
        weight: of the unquantized layer, [out, in].
        bias: likewise, [out], or None.
        activation_scale: how tokens find their step.
        parts: what is learned; ``smoothing`` where the pack smooths only, ``factors`` where it has
            global ones.
        update_rank: of F1 F2.
        seed: of F2's start; F1 starts at 0, so that the layer starts as the pack has it.
        steps: of the sampling loop.

    Attributes:
        active: whether it is quantized.
        group: how many neighbouring weights of a row share a step; None for all of them.
    """

    def __init__(
        self,
        start: QuantizedWeight,
        weight: Tensor,
        bias: Tensor | None,
        activation_scale: ScaleRule,
        *,
        parts: Collection[LearnedPart],
        update_rank: int = 0,
        seed: int = 0,
        steps: int = 1,
    ) -> None:
        super().__init__()
        self.name, self._start = start.name, start
        self.active = True
        self.group: int | None = None
        self.weight_bits, self.rotation = start.weight_bits, start.rotation
        self.weight: Tensor
        self.bias: Tensor | None
        self.signs: Tensor | None
        self.local: Tensor | None
        self.frozen: Tensor | None
        self.nudge: Tensor | None
        local = start.local_factors
        for name, constant in {
            "weight": weight.float(),
            "bias": None if bias is None else bias.float(),
            "signs": start.signs,
            "first_step": start.scale,
            "first_smoothing": start.smoothing,
            "local": None if local is None else local_product(local),
            "frozen": None,
            "nudge": None,
        }.items():
            self.register_buffer(name, constant, persistent=False)
        rows, columns = weight.shape
        generator = torch.Generator().manual_seed(seed)
        self._learned: dict[str, LearnedPart] = {}

        def learned(part: LearnedPart, name: str, value: Tensor | None) -> nn.Parameter | None:
            if value is None:
                return None
            if part in parts:
                self._learned[name] = part
            return nn.Parameter(value.float().clone(), requires_grad=part in parts)

        up, down = _as_floats(start.global_factors)
        # Of the start, so that a run that goes on has the rates that it had.
        self._units = {
            name: float(factor.square().mean().sqrt()) or 1.0
            for name, factor in (("up", up), ("down", down))
            if factor is not None
        }
        has_update = "rounding" in parts and update_rank > 0
        self.log_step = learned("steps", "log_step", torch.zeros(rows))
        self.up, self.down = learned("factors", "up", up), learned("factors", "down", down)
        self.update_up = learned(
            "rounding", "update_up", torch.zeros(rows, update_rank) if has_update else None
        )
        self.update_down = learned(
            "rounding",
            "update_down",
            torch.randn(update_rank, columns, generator=generator) / update_rank**0.5
            if has_update
            else None,
        )
        self.update = learned(
            "weights", "update", torch.zeros(rows, columns) if "weights" in parts else None
        )
        smooths = start.smoothing is not None
        self.log_smoothing = learned(
            "smoothing", "log_smoothing", torch.zeros(columns) if smooths else None
        )
        self.tokens = TokenQuantizer(
            activation_scale, _bounds(parts), steps, factor=start.token_step
        )
        self.nudge = self._to_codes(start)
        self.rounding: AdaRound | None = None
        self.transform: KroneckerMap | None = None
        if "transform" in parts:
            self.transform = KroneckerMap(columns)
        if "adaround" in parts:
            with torch.no_grad():
                residual = self._residual()
            self.rounding = AdaRound(residual, start.scale, self.weight_bits)
        for part, prefix in (
            ("bounds", "tokens."),
            ("timestep-bounds", "tokens."),
            ("transform", "transform."),
            ("adaround", "rounding."),
        ):
            if part in parts:
                names = [name for name, _ in self.named_parameters() if name.startswith(prefix)]
                self._learned |= dict.fromkeys(names, part)  # type: ignore[arg-type]
        self.eval()

    def trainables(self) -> Iterator[Trainable]:
        """What is learned here."""
        for name, part in self._learned.items():
            yield Trainable(part, self.get_parameter(name), self._units.get(name, 1.0))

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
        mapped = z if self.transform is None else self.transform.inputs(z)
        quantized = mapped if bits == UNQUANTIZED else self.tokens(mapped, bits)
        y = F.linear(quantized, self.quantized() if self.frozen is None else self.frozen)
        factors = self._factors()
        if factors is not None:
            y = y + F.linear(F.linear(z, factors[1]), factors[0])
        if self.local is not None:
            y = y + F.linear(z, self.local)
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def quantized(self) -> Tensor:
        """What the codes decode to, [out, in], in the domain of what it is multiplied with."""
        if self.rounding is not None:
            return self.rounding.weight(self._step(), soft=self.training)
        residual = self._residual()
        if self.group is not None:
            grouped = in_groups(residual, self.group)
            scale = row_scales(grouped, self.weight_bits, "absmax")
            return fake_quantize(grouped, scale, self.weight_bits).flatten(-2)
        step = self._step()
        if self.transform is not None:
            # A map changes how large a row is: its step goes along.
            before = row_scales(residual, self.weight_bits)
            residual = self.transform.weights(residual)
            ratio = row_scales(residual, self.weight_bits) / before.clamp_min(1e-30)
            step = step * ratio
        return fake_quantize(residual, step, self.weight_bits)

    @torch.no_grad()
    def folded(self) -> QuantizedWeight:
        """The layer as a pack holds it; on the CPU.

        Raises:
            ValueError: it has something that a pack has no place for.
        """
        unfolded = set(self._learned.values()) - set(FOLDED_PARTS)
        if unfolded or self.group is not None:
            raise ValueError(
                f"{self.name}: no pack holds {', '.join(sorted(unfolded)) or 'groups'}"
            )
        stored = self._stored_factors()
        product = None if stored is None else global_product(stored).to(self.weight)
        smoothing, step = self._smoothing(), self._step().cpu()
        if self.rounding is not None:
            codes = self.rounding.codes().cpu()
        else:
            codes = encode_rows(self._residual(product).cpu(), step, self.weight_bits)
        return replace(
            self._start,
            codes=pack_codes(codes, self.weight_bits),
            scale=step,
            global_up=None if stored is None else stored.up,
            global_down=None if stored is None else stored.down,
            global_scale=None if stored is None else stored.scale,
            smoothing=None if smoothing is None else smoothing.cpu(),
            token_step=self.tokens.factor(),
        )

    def _stored_factors(self) -> FactorPair | None:
        """U and V as a pack stores them: to the bit as they were, where they were not learned."""
        old = self._start.global_factors
        if old is None or self.up is None or self.down is None or "up" not in self._learned:
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

    def _residual(self, product: Tensor | None = None) -> Tensor:
        """What is rounded, [out, in] in the rotated domain, beside U V, or ``product`` for it."""
        smoothing, factors = self._smoothing(), self._factors()
        if product is None and factors is not None:
            product = factors[0] @ factors[1]
        smoothed = self.weight if smoothing is None else self.weight * smoothing
        residual = self.rotation.apply(smoothed, self.signs)
        for branch in (product, self.local):
            if branch is not None:
                residual = residual - branch
        if self.update_up is not None and self.update_down is not None:
            residual = residual + self._step()[:, None] * (self.update_up @ self.update_down)
        if self.update is not None:
            residual = residual + self._step()[:, None] * self.update
        if self.nudge is not None:
            residual = residual + self._step()[:, None] * self.nudge
        return residual

    @torch.no_grad()
    def _to_codes(self, start: QuantizedWeight) -> Tensor | None:
        """What the residual lacks to round to the pack's codes, [out, in], in units of a step.

        None where it lacks nothing. GPTQ leaves many weights on levels that are not their nearest.
        """
        residual, codes = self._residual(), start.unpacked_codes()
        elsewhere = encode_rows(residual, start.scale, start.weight_bits) != codes
        if not bool(elsewhere.any()):
            return None
        divisor = torch.where(start.scale > 0, start.scale, torch.inf)[:, None]
        level = codes.float() - (2**start.weight_bits - 1) / 2
        return torch.where(elsewhere, level - residual / divisor, 0)


def _bounds(parts: Collection[LearnedPart]) -> Bounds:
    if "timestep-bounds" in parts:
        return "per-timestep"
    return "per-layer" if "bounds" in parts else "fixed"


def _as_floats(pair: FactorPair | None) -> tuple[Tensor | None, Tensor | None]:
    """U [out, r] and V [r, in] of SVD-G in float32, the scales shared between them."""
    if pair is None:
        return None, None
    up, down = pair.up.float(), pair.down.float()
    if pair.scale is None:
        return up, down
    root = pair.scale.float().sqrt()
    return up * root, down * root[:, None]
