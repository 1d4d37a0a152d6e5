"""The stages of a plan: which blocks are quantized, which learn, and what they are judged by."""

from dataclasses import dataclass

from planner.learned.linear import LearnedPart
from planner.learned.plan import LearningPlan


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: for people.
        steps: optimizer steps.
        active: indices of the blocks that are quantized.
        learning: of those that learn.
        block: whose output is compared; None for the result alone.
        by_result: whether the result is compared too.
        parts: what is learned.
        layers: regular expression, found in the names of the layers that learn.
    """

    name: str
    steps: int
    active: frozenset[int]
    learning: frozenset[int]
    block: int | None
    by_result: bool
    parts: tuple[LearnedPart, ...]
    layers: str


def stages(plan: LearningPlan, blocks: int) -> list[Stage]:
    """The stages of ``plan`` for a network of so many blocks, in order; none without steps."""
    everything = frozenset(range(blocks))
    found: list[Stage] = []

    def of_block(name: str, block: int, active: frozenset[int], learning: frozenset[int]) -> None:
        by_result = plan.order == "reversed"
        steps, parts, layers = plan.block_steps, plan.parts, plan.layers
        found.append(Stage(name, steps, active, learning, block, by_result, parts, layers))

    if plan.order == "reversed":
        for block in reversed(range(blocks)):
            rest = frozenset(range(block, blocks))
            of_block(f"block {block} and later", block, rest, rest)
    elif plan.order == "forward":
        for block in range(blocks):
            of_block(f"block {block}", block, frozenset(range(block + 1)), frozenset([block]))
    found.append(
        Stage(
            "all blocks",
            plan.whole_steps,
            everything,
            everything,
            None,
            by_result=True,
            parts=plan.whole_parts or plan.parts,
            layers=plan.whole_layers,
        )
    )
    return [stage for stage in found if stage.steps]
