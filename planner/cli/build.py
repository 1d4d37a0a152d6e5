"""``qplan build``: from a checkpoint to a pack, with data or without.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.option_groups import grouped_options
from artifacts.cli.output import print_json, say
from planner.cli.build_options import (
    BaseOptions,
    MethodOptions,
    PassOptions,
    QuantizerOptions,
    UnfinishedOptions,
)
from planner.cli.data_options import DataOptions
from planner.cli.options import (
    CheckpointArgument,
    Debug,
    Json,
    Segments,
    Vatmp,
    allocation,
    show_notes,
    warn,
)

if TYPE_CHECKING:
    from artifacts.checkpoint.reader import Checkpoint
    from planner.build.base_model import BaseModel
    from planner.build.build import BuildResult
    from planner.settings import BuildSettings

BUILD_EXAMPLE = """
Examples:

qplan build dit4sr.safetensors --target W4A4 --base stable-diffusion-3.5-medium -o model.qpack

qplan build dit4sr/ --target W4A4 --recipe q-dit4sr --calib low_resolution_photos/

qplan build dit4sr/ --target W3.5A4 --keep 'norm1' --allocator exact
"""


@grouped_options
def build(
    checkpoint: CheckpointArgument,
    *,
    method: MethodOptions,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The pack. Default: CHECKPOINT-w4a4.qpack.")
    ] = None,
    data: DataOptions,
    calibration_pass: PassOptions,
    base: BaseOptions,
    quantizer: QuantizerOptions,
    vatmp: Vatmp = None,
    segments: Segments = None,
    unfinished: UnfinishedOptions,
    force: Annotated[bool, typer.Option("--force", help="Replace an older pack.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Build a pack from a checkpoint.

    With a base model at hand the network is probed first: bits go by what errors do to its result
    (recipe standard). Without one, or where the probe would take too long, nothing but weights is
    read (recipe q-dit4sr), and a note says so. An interrupted build goes on when the same command
    is repeated, with or without --resume; the pack is the same as if it had not been interrupted.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.pack.writer import check_output
        from planner.build.left_over import cleared_when_refused
        from planner.build.work_folder import claimed
        from planner.inspect.inspection import size_text, summary
        from planner.recipe_choice import asked_recipe
        from planner.recipes import DEFAULT_RECIPE

        steps = {"timestep_allocation": allocation(vatmp, "vatmp"), "segments": segments}
        recipe = asked_recipe(method.recipe, quantizer.chosen(**steps) | data.named())
        settings = quantizer.settings(
            recipe.name if recipe else DEFAULT_RECIPE, method.target, **steps
        )
        data.check()
        unfinished.check()
        base.check()
        opened = open_checkpoint(checkpoint)
        notes = opened.notes(settings.variant)
        show_notes(notes)
        output = out or _default_output(checkpoint, str(settings.target))
        with cleared_when_refused(output):
            check_output(output, force=force)  # before any weight is read
        with claimed(output), base.found(opened) as model:
            if recipe is None:
                architecture = opened.architecture(settings.variant)
                recipe = calibration_pass.default_recipe(architecture, model, data.calib)
                settings = quantizer.settings(recipe.name, method.target, **steps)
            show_notes(recipe.notes)  # before anything that takes long
            settings, fallen_back = quantizer.settled(settings, opened, model, calibration_pass)
            data, unused = data.used_by(settings)
            for warning in unused:
                warn(warning)
            result = _build(
                opened,
                output,
                settings,
                model,
                data,
                calibration_pass,
                unfinished,
                force=force,
                show=not json_output,
            )
        show_notes(fallen_back)
        for warning in result.warnings:
            warn(warning)
        if json_output:
            notes = [*notes, *recipe.notes, *fallen_back]
            facts = {"pack": str(output), "notes": notes, "warnings": result.warnings}
            print_json({**facts, **summary(result.manifest)})
        else:
            reached = result.manifest.reached
            say(
                f"{output}: {len(result.manifest.layers)} layers, {reached.weight_bits:.4f} mean"
                f" weight bits, {reached.activation_bits:.4f} activation bits, transformer"
                f" {size_text(result.manifest)}"
            )


def _build(
    checkpoint: "Checkpoint",
    output: Path,
    settings: "BuildSettings",
    model: "BaseModel",
    data: DataOptions,
    calibration_pass: PassOptions,
    unfinished: UnfinishedOptions,
    *,
    force: bool,
    show: bool,
) -> "BuildResult":
    """Measure what the settings go by, and build; or go on with what is unfinished.

    What runs a network is imported where it is needed: it brings an image library, and a machine
    that only quantizes may lack one.

    Raises:
        QPackError: as `planner.build.build` and what it measures with.
    """
    from planner.build.resumable import build_resumable
    from planner.calibrate.calibration_file import read_calibration
    from planner.cli.progress import BarProgress
    from planner.probe.kept_pictures import kept_folder, remove_kept

    known = None if data.calibration is None else read_calibration(data.calibration)
    with BarProgress(enabled=show) as progress:
        sensitivity = moments = None
        if settings.uses_sensitivity or settings.uses_moments:
            from planner.calibrate.device import choose_device
            from planner.moments.find import find_moments
            from planner.probe.find import find_sensitivity

            device, dtype = choose_device(calibration_pass.device)
            probe = calibration_pass.probe(data.calib)
            where: dict[str, Any] = {"device": device, "dtype": dtype, "keep": kept_folder(output)}
            told: dict[str, Any] = {"report": progress.say, "progress": progress}
            sensitivity = find_sensitivity(
                data.sensitivity, checkpoint, settings, model, probe, **where, **told
            )
            moments = find_moments(checkpoint, settings, model, probe, sensitivity, **where, **told)
        if data.calib is not None and not settings.uses_sensitivity:
            from planner.build.calibrated_build import build_calibrated

            run = calibration_pass.run(data.calib, unfinished, progress.say)
            result = build_calibrated(
                checkpoint,
                output,
                settings,
                model,
                run,
                moments=moments,
                force=force,
                progress=progress,
            )
        else:
            result = build_resumable(
                checkpoint,
                output,
                settings,
                model,
                unfinished.work(output, progress.say),
                calibration=known,
                sensitivity=sensitivity,
                moments=moments,
                force=force,
                progress=progress,
                device=calibration_pass.quantizing_device(),
            )
    remove_kept(output)
    return result


def _default_output(checkpoint: Path, target: str) -> Path:
    """A sibling of the checkpoint, named after it, however the user wrote its path."""
    import os

    # Not Path.resolve: a hub cache's link must not be followed to a blob named by its hash.
    plain = Path(os.path.abspath(checkpoint))  # noqa: PTH100
    stem = plain.name if plain.is_dir() else plain.stem
    return plain.parent / f"{stem}-{target.lower()}.qpack"
