"""The stages of a plan: which blocks are quantized, which learn, and what they are judged by."""

from dataclasses import dataclass

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
    """

    name: str
    steps: int
    active: frozenset[int]
    learning: frozenset[int]
    block: int | None
    by_result: bool


def stages(plan: LearningPlan, blocks: int) -> list[Stage]:
    """The stages of ``plan`` for a network of so many blocks, in order; none without steps."""
    everything = frozenset(range(blocks))
    found: list[Stage] = []
    if plan.order == "reversed":
        for block in reversed(range(blocks)):
            rest = frozenset(range(block, blocks))
            name = f"block {block} and later"
            found.append(Stage(name, plan.block_steps, rest, rest, block, by_result=True))
    elif plan.order == "forward":
        for block in range(blocks):
            before = frozenset(range(block + 1))
            alone = frozenset([block])
            found.append(
                Stage(f"block {block}", plan.block_steps, before, alone, block, by_result=False)
            )
    found.append(
        Stage("all blocks", plan.whole_steps, everything, everything, None, by_result=True)
    )
    return [stage for stage in found if stage.steps]
