"""``qplan recipes`` names everything that can be asked for, and nothing else."""

import json

from planner.learned.recipes import LEARNED_RECIPES
from planner.recipes import RECIPES
from tests.planner.run_qplan import run_qplan


def test_every_recipe_and_every_method_that_makes_packs_is_listed():
    result = run_qplan("recipes", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["build"] == {name: recipe.summary for name, recipe in RECIPES.items()}
    assert {"qartsr", "ptq4dit"} <= set(found["learn"]) < set(LEARNED_RECIPES)
    assert "flatquant" not in found["learn"]


def test_words():
    result = run_qplan("recipes")
    assert result.exit_code == 0, result.stderr
    for name in ("standard", "q-dit4sr", "qartsr"):
        assert name in result.stdout
