"""Plans as stages: what is quantized, what learns, what it is judged by."""

import pytest

from planner.learned.plan import LearningPlan
from planner.learned.recipes import LEARNED_RECIPES
from planner.learned.stages import stages
from planner.recipes import RECIPES
from schemas.errors import UsageError


def test_reversed_goes_from_the_last_block_whose_input_is_exact():
    found = stages(LearningPlan(order="reversed", block_steps=3, whole_steps=5), 3)
    assert [stage.block for stage in found] == [2, 1, 0, None]
    assert [sorted(stage.active) for stage in found] == [[2], [1, 2], [0, 1, 2], [0, 1, 2]]
    assert all(stage.active == stage.learning and stage.by_result for stage in found)
    assert [stage.steps for stage in found] == [3, 3, 3, 5]


def test_forward_sees_the_quantized_blocks_before_and_judges_by_the_block_alone():
    found = stages(LearningPlan(order="forward", block_steps=3, whole_steps=0), 3)
    assert [sorted(stage.active) for stage in found] == [[0], [0, 1], [0, 1, 2]]
    assert [sorted(stage.learning) for stage in found] == [[0], [1], [2]]
    assert not any(stage.by_result for stage in found)


def test_stages_without_steps_are_left_out():
    assert stages(LearningPlan(order="none", whole_steps=0), 3) == []
    assert [s.block for s in stages(LearningPlan(order="none"), 3)] == [None]


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "sideways"},
        {"parts": ()},
        {"parts": ("luck",)},
        {"block_steps": -1},
        {"whole_steps": -1},
        {"update_rank": -1},
        {"batch": 0},
        {"rate": 0.0},
    ],
)
def test_values_out_of_range_are_refused(fields):
    with pytest.raises(UsageError):
        LearningPlan(**fields)


@pytest.mark.parametrize("name", LEARNED_RECIPES)
def test_methods_start_from_a_recipe_and_take_overrides(name):
    recipe = LEARNED_RECIPES[name]
    assert recipe.base in RECIPES
    assert recipe.learning(batch=2).batch == 2
