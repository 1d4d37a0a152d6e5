"""``qplan recipes``: what there is to choose from.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json
from planner.cli.options import Debug, Json, console

RECIPES_EXAMPLE = "Example:  qplan recipes"


def recipes(*, json_output: Json = False, debug: Debug = False) -> None:
    """List the recipes of `qplan build` and the methods of `qplan learn`.

    Methods whose result no pack holds are left out: `python -m benchmarks.learned` measures them.
    """
    with exit_on_error(debug=debug):
        from planner.learned.recipes import LEARNED_RECIPES
        from planner.recipes import RECIPES

        built = {name: recipe.summary for name, recipe in RECIPES.items()}
        learned = {
            name: recipe.summary
            for name, recipe in LEARNED_RECIPES.items()
            if recipe.learning().simulated is None
        }
        if json_output:
            print_json({"build": built, "learn": learned})
            return
        from rich.table import Table

        for title, summaries in (
            ("qplan build --recipe", built),
            ("qplan learn --method", learned),
        ):
            table = Table(title=title, title_justify="left", show_header=False)
            for name, summary in summaries.items():
                table.add_row(name, summary)
            console().print(table)
