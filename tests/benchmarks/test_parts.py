"""The parts of standard as rows: all of them, each one choice away from what it is paired with."""

from benchmarks.quality.parts import MIXTURE, OPERATIONS, PAPER, part_rows, parts
from planner.recipes import RECIPES, recipe_settings
from planner.target import parse_target
from runtime.bench.workload import Ranks

RANKS = Ranks(4, 2)
TARGET = parse_target("W4A4")


def differences(one, other):
    """Names of the settings in which two builds differ, their recipe's name aside."""
    return {name for name, value in vars(one).items() if value != vars(other)[name]} - {"recipe"}


def test_all_parts_together_are_standard():
    ours, papers = {}, {}
    for part in parts(RANKS).values():
        if part.is_in:
            ours |= part.ours
            papers |= part.papers
    standard = recipe_settings(MIXTURE, TARGET, **parts(RANKS)["factors"].ours)
    assert differences(recipe_settings(PAPER, TARGET, **ours), standard) == set()
    paper = recipe_settings(PAPER, TARGET, **parts(RANKS)["factors"].papers)
    assert differences(recipe_settings(MIXTURE, TARGET, **papers), paper) == set()
    # Whatever the recipe chooses beyond the paper's settings is a part, and gets measured.
    assert set(ours) == set(RECIPES[MIXTURE].choices)


def test_a_row_differs_by_its_part_from_the_row_it_is_paired_with():
    rows = part_rows("W4A4", RANKS)
    known = parts(RANKS)
    assert len(rows) == len({row.name for row in rows}) == 2 * len(known) + 6
    for row in rows:
        (paired,) = row.against
        base = known["factors"].papers if paired == PAPER else known["factors"].ours
        if paired == OPERATIONS:
            base, paired = {**base, "budget": "bit-operations"}, MIXTURE
        settings = recipe_settings(row.recipe, TARGET, **row.overrides)
        name = row.name.rpartition("-")[2]
        allowed = {"effort"} if name == "thorough" else set(known[name].ours)
        changed = differences(settings, recipe_settings(paired, TARGET, **base))
        assert changed
        assert changed <= allowed
        assert ("photos" in row.name) == (row.photos > 0)
