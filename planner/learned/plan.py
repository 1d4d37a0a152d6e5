"""How a pack is learned: what, in which order, for how long. A method is such a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from planner.learned.linear import LEARNED_PARTS, LearnedPart
from schemas.errors import UsageError

Order = Literal["reversed", "forward", "none"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class LearningPlan:
    """A method of learning.

    Attributes:
        order: of the blocks, one after another. ``reversed`` begins with the last: what comes
            before is unquantized, so that a block's input is exact, and what comes after learns on
            (QArtSR's RPQ). ``forward`` begins with the first: a block sees the quantized ones
            before it. ``none`` leaves this out.
        block_steps: optimizer steps per block.
        whole_steps: optimizer steps of all blocks together afterwards, on the result alone.
        parts: what is learned in every layer.
        update_rank: of F1 F2 inside the rounding.
        result_weight: of the result's error beside the block's, where blocks are learned.
        batch: pictures per step.
        rate: peak learning rate, in units of each tensor's own size; it falls along a cosine.
        seed: of batches and of F2.

    Raises:
        UsageError: a value is out of range.
    """

    order: Order = "reversed"
    block_steps: int = 16
    whole_steps: int = 64
    parts: tuple[LearnedPart, ...] = LEARNED_PARTS
    update_rank: int = 8
    result_weight: float = 1.0
    batch: int = 4
    rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UsageError(f"order {self.order!r}", hint="one of: " + ", ".join(ORDERS))
        unknown = [part for part in self.parts if part not in LEARNED_PARTS]
        if unknown or not self.parts:
            raise UsageError(
                f"cannot learn {unknown[0]!r}" if unknown else "nothing is to be learned",
                hint="parts: " + ", ".join(LEARNED_PARTS),
            )
        for what, value, least in (
            ("steps per block", self.block_steps, 0),
            ("steps of the whole", self.whole_steps, 0),
            ("rank of the update", self.update_rank, 0),
            ("pictures per step", self.batch, 1),
        ):
            if value < least:
                raise UsageError(f"{value} {what}", hint=f"at least {least}")
        if not 0 < self.rate <= 1:
            raise UsageError(f"a learning rate of {self.rate:g}", hint="above 0, at most 1")


@dataclass(frozen=True)
class LearnedRecipe:
    """A method that learns: the recipe of the pack that it starts from, and its plan.

    Attributes:
        summary: one line for ``--help`` and documents.
        base: name of a recipe in `planner.recipes`.
        plan: what differs from `LearningPlan`'s defaults.
    """

    summary: str
    base: str
    plan: Mapping[str, Any]

    def learning(self, **overrides: Any) -> LearningPlan:
        """The plan, with what a user asks for in its place."""
        return replace(LearningPlan(**self.plan), **overrides)


LEARNED_RECIPES: dict[str, LearnedRecipe] = {
    "qartsr": LearnedRecipe(
        "QArtSR: svdquant, its smoothing, factors, steps and rounding learned block by block from"
        " the last, then all together",
        "svdquant",
        {},
    ),
    "qartsr-forward": LearnedRecipe(
        "qartsr from the first block to the last", "svdquant", {"order": "forward"}
    ),
    "qartsr-whole": LearnedRecipe(
        "qartsr without learning blocks one by one", "svdquant", {"order": "none"}
    ),
    "efficientdm": LearnedRecipe(
        "EfficientDM's idea: a low-rank update merged into the rounding, learned as a whole",
        "quarot",
        {"order": "none", "parts": ("rounding", "steps"), "update_rank": 32},
    ),
}
