"""How a pack is learned: what, in which order, for how long. A method is such a plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from planner.learned.balance import BALANCES, Balance
from planner.learned.linear import FOLDED_PARTS, LEARNED_PARTS, LearnedPart
from schemas.errors import UsageError

Order = Literal["reversed", "forward", "none"]
ORDERS: tuple[Order, ...] = get_args(Order)
Result = Literal["velocity", "latent"]
RESULTS: tuple[Result, ...] = get_args(Result)
DEFAULT_PARTS: tuple[LearnedPart, ...] = ("steps", "factors", "rounding", "smoothing")


@dataclass(frozen=True)
class LearningPlan:
    """A method of learning.

    Attributes:
        order: of the blocks, one after another. ``reversed`` begins with the last: what comes
            before is unquantized, so that a block's input is exact, and what comes after learns on
            (QArtSR's RPQ). ``forward`` begins with the first: a block sees the quantized ones
            before it. ``none`` leaves this out.
        block_steps: optimizer steps per block.
        block_draws: where a block learns by its own output alone, from how many batches of inputs,
            spread evenly over the sampling loop and kept meanwhile.
        whole_steps: optimizer steps of all blocks together afterwards, on the result alone.
        result: what that is: the ``velocity`` of one step of the sampling loop, drawn at random, or
            the final ``latent`` of the whole loop, which costs as many passes as it has steps and
            counts what errors of one step do to the next.
        parts: what is learned in every layer.
        whole_parts: what is learned of all blocks together, if that is something else.
        layers, whole_layers: regular expressions, found in the names of layers that learn while
            blocks are learned one by one, and afterwards.
        update_rank: of F1 F2 inside the rounding.
        balance: where smoothing starts (`planner.learned.balance`); ``none`` leaves it as it is.
        groups: generations of the search for group sizes of every layer
            (`planner.learned.groups`), before anything is learned; 0 for no groups.
        result_weight: of the result's error beside the block's, where blocks are learned.
        batch: pictures per step.
        rate: peak learning rate, in units of each tensor's own size; it falls along a cosine.
        seed: of batches and of F2.

    Raises:
        UsageError: a value is out of range.
    """

    order: Order = "reversed"
    block_steps: int = 16
    block_draws: int = 16
    whole_steps: int = 64
    result: Result = "velocity"
    parts: tuple[LearnedPart, ...] = DEFAULT_PARTS
    whole_parts: tuple[LearnedPart, ...] = ()
    layers: str = ""
    whole_layers: str = ""
    update_rank: int = 8
    balance: Balance = "none"
    groups: int = 0
    result_weight: float = 1.0
    batch: int = 4
    rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UsageError(f"order {self.order!r}", hint="one of: " + ", ".join(ORDERS))
        if self.balance not in BALANCES:
            raise UsageError(f"balance {self.balance!r}", hint="one of: " + ", ".join(BALANCES))
        if self.result not in RESULTS:
            raise UsageError(f"result {self.result!r}", hint="one of: " + ", ".join(RESULTS))
        unknown = [part for part in self.all_parts if part not in LEARNED_PARTS]
        if unknown or not (self.parts or self.groups):
            raise UsageError(
                f"cannot learn {unknown[0]!r}" if unknown else "nothing is to be learned",
                hint="parts: " + ", ".join(LEARNED_PARTS),
            )
        changing = {"factors", "rounding", "smoothing", "weights", "transform"}
        if "adaround" in self.all_parts and changing & set(self.all_parts):
            raise UsageError(
                "adaround learns beside what changes the weights that it rounds",
                hint="it goes with steps and bounds alone",
            )
        for pattern in (self.layers, self.whole_layers):
            try:
                re.compile(pattern)
            except re.error as cause:
                raise UsageError(f"{pattern!r} is no regular expression: {cause}") from None
        for what, value, least in (
            ("steps per block", self.block_steps, 0),
            ("steps of the whole", self.whole_steps, 0),
            ("rank of the update", self.update_rank, 0),
            ("generations of groups", self.groups, 0),
            ("pictures per step", self.batch, 1),
            ("batches per block", self.block_draws, 1),
        ):
            if value < least:
                raise UsageError(f"{value} {what}", hint=f"at least {least}")
        if not 0 < self.rate <= 1:
            raise UsageError(f"a learning rate of {self.rate:g}", hint="above 0, at most 1")

    @property
    def all_parts(self) -> tuple[LearnedPart, ...]:
        """What is learned at any time."""
        return tuple(dict.fromkeys((*self.parts, *self.whole_parts)))

    @property
    def simulated(self) -> str | None:
        """What of the plan no pack can hold, in words; None where the result is a pack."""
        unfolded = [str(part) for part in self.all_parts if part not in FOLDED_PARTS]
        return ", ".join([*unfolded, *(["groups"] if self.groups else [])]) or None


@dataclass(frozen=True)
class LearnedRecipe:
    """A method that learns: the recipe of the pack that it starts from, and its plan.

    Attributes:
        summary: one line for ``--help`` and documents.
        base: name of a recipe in `planner.recipes`.
        plan: what differs from `LearningPlan`'s defaults.
        base_settings: what differs from the base's settings.
    """

    summary: str
    base: str
    plan: Mapping[str, Any]
    base_settings: Mapping[str, Any] = field(default_factory=dict)

    def learning(self, **overrides: Any) -> LearningPlan:
        """The plan, with what a user asks for in its place."""
        return replace(LearningPlan(**self.plan), **overrides)
