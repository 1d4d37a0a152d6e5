"""``qplan estimate``: what a build would give, before anything is built.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.option_groups import grouped_options
from artifacts.cli.output import print_json
from planner.cli.build_options import MethodOptions, QuantizerOptions
from planner.cli.options import Debug, Json, console, show_notes
from schemas.errors import UsageError

if TYPE_CHECKING:
    from artifacts.checkpoint.reader import Checkpoint
    from planner.settings import BuildSettings


_LARGEST_PX = 65536
_SIMPLEST = "qplan estimate --preset dit4sr --target W4A4"
ESTIMATE_EXAMPLE = f"""
Examples:

{_SIMPLEST}

qplan estimate dit4sr.safetensors --target W3.5A4 --recipe q-dit4sr-residual --measure
"""


@grouped_options
def estimate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file."),
    ] = None,
    *,
    preset: Annotated[
        str | None, typer.Option(help="A known network instead: dit4sr, vosr-0.5b, vosr-1.4b.")
    ] = None,
    method: MethodOptions,
    quantizer: QuantizerOptions,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Read all weights: bits follow their variances."),
    ] = False,
    resolution: Annotated[int, typer.Option(help="Side of the result, in px.")] = 512,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. Default: the published network's.")
    ] = None,
    text_tokens: Annotated[
        int | None,
        typer.Option(
            help="Length of the prompt, or number of the picture's features. Default: as published."
        ),
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Predict sizes, operations and distortion; build nothing.

    Recipe and options are those of `qplan build`, and nothing is probed: without --recipe it is
    `standard`, also where a build would fall back. Without --measure no weights are read, and all
    layers count as having the same variance.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.family import preset_architecture
        from planner.estimate.estimate import estimate as predict
        from planner.estimate.modulations import without_larger_table
        from planner.estimate.result import ImageSettings
        from planner.estimate.tables import render
        from planner.recipe_choice import RecipeChoice, asked_recipe
        from planner.recipes import DEFAULT_RECIPE

        if (checkpoint is None) == (preset is None):
            raise UsageError("name either a checkpoint or --preset", hint=_SIMPLEST)
        if not 1 <= resolution <= _LARGEST_PX:
            raise UsageError(f"--resolution {resolution}: 1 to {_LARGEST_PX} px are needed")
        if measure and checkpoint is None:
            raise UsageError("--measure needs a checkpoint: a preset has no weights")
        recipe = asked_recipe(method.recipe, quantizer.chosen()) or RecipeChoice(DEFAULT_RECIPE)
        show_notes(recipe.notes)
        settings = quantizer.settings(recipe.name, method.target)
        opened = None if checkpoint is None else open_checkpoint(checkpoint)
        if opened is not None:
            show_notes(opened.notes(settings.variant))
        variances = None
        if opened is not None and measure:
            variances = _variances(opened, settings, show=not json_output)
        architecture = (
            preset_architecture(str(preset), settings.variant)
            if opened is None
            else opened.architecture(settings.variant)
        )
        family = architecture.family
        image = ImageSettings(
            family.sampling.steps if steps is None else steps,
            resolution,
            family.text_tokens if text_tokens is None else text_tokens,
        )
        if quantizer.modulation is None:
            settings = without_larger_table(settings, architecture, image.steps)
        result = predict(architecture, settings, image, variances=variances)
        if json_output:
            print_json(result.to_json())
        else:
            console().print(render(result))


def _variances(
    checkpoint: "Checkpoint", settings: "BuildSettings", *, show: bool
) -> dict[str, float]:
    """Layer name -> the variance that a build would measure."""
    from planner.build.layers import weight_statistics
    from planner.cli.progress import BarProgress

    with BarProgress(enabled=show) as progress:
        measured = weight_statistics(checkpoint, settings, progress)
    return {layer.name: layer.variance for layer in measured}
