"""Which recipe a user asked for, by name or by other options, before anything heavy is imported."""

from collections.abc import Collection
from dataclasses import dataclass

from planner.recipes import DEFAULT_RECIPE, PAPER_RECIPE

FROM_FILE = "--recipe standard --sensitivity FILE takes what `qplan probe` found elsewhere"
OF_STANDARD = ("budget", "sensitivity")
"""Settings and files that go by what `DEFAULT_RECIPE` alone does."""
OF_PAPER = {
    "weight_allocation": "--vasmp",
    "timestep_allocation": "--vatmp",
    "segments": "--segments",
    "allocator": "--allocator",
    "weight_statistic": "--weight-statistic",
    "calibration": "--calibration",
}
"""Those that are about VaSMP or VaTMP, with their options."""


@dataclass(frozen=True)
class RecipeChoice:
    """A recipe, and why.

    Attributes:
        name: of the recipe.
        notes: for the user, where it is neither named nor `DEFAULT_RECIPE`; one line each.
    """

    name: str
    notes: tuple[str, ...] = ()


def asked_recipe(name: str | None, chosen: Collection[str]) -> RecipeChoice | None:
    """The recipe that a user named, or whose options were set; None where any will do.

    Args:
        name: of ``--recipe``.
        chosen: fields of `planner.settings.BuildSettings` that have a value, with ``sensitivity``
            and ``calibration`` for the files.
    """
    if name is not None:
        return RecipeChoice(name)
    if any(option in chosen for option in OF_STANDARD):
        return RecipeChoice(DEFAULT_RECIPE)
    for field, option in OF_PAPER.items():
        if field in chosen:
            return RecipeChoice(
                PAPER_RECIPE,
                (f"recipe {PAPER_RECIPE}, which {option} belongs to; --recipe chooses another",),
            )
    return None


def recipe_without_base(*, reads_picture: bool = False) -> RecipeChoice:
    """The recipe where there is nothing to run the network with.

    Args:
        reads_picture: whether the network reads features of the picture instead of prompts.
    """
    needed = "image encoder" if reads_picture else "prompts"
    return fallback(f"cannot probe without VAE and {needed}; --base has them, {FROM_FILE}")


def fallback(reason: str) -> RecipeChoice:
    """The paper's recipe, because the default one is out of the question.

    Args:
        reason: what is said of the default recipe; goes on with a way to have it all the same.
    """
    return RecipeChoice(PAPER_RECIPE, (f"recipe {PAPER_RECIPE}: {DEFAULT_RECIPE} {reason}",))
