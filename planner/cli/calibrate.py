"""``qplan calibrate``: what a network's layers are fed, measured once for several builds.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated

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
from planner.cli.options import CheckpointArgument, Debug, Json, show_notes, warn
from schemas.errors import UsageError

CALIBRATE_EXAMPLE = """
Example:

qplan calibrate dit4sr/ --calib low_resolution_photos/ -o calibration.json

qplan build dit4sr/ --target W4A4 --calibration calibration.json
"""


@grouped_options
def calibrate(
    checkpoint: CheckpointArgument,
    *,
    calib: Annotated[
        Path, typer.Option(metavar="DIR", help="Low-resolution images to calibrate with.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The calibration file.")] = Path(
        "calibration.json"
    ),
    method: MethodOptions,
    calibration_pass: PassOptions,
    base: BaseOptions,
    quantizer: QuantizerOptions,
    unfinished: UnfinishedOptions,
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what a network's layers are fed at every timestep, on low-resolution images.

    The weights are quantized first, as `qplan build` would with the same options; activations are
    not. The file serves any activation target. An interrupted calibration goes on when the same
    command is repeated, with or without --resume.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint.reader import open_checkpoint
        from planner.build.calibrated_build import measure_inputs
        from planner.build.left_over import cleared_when_refused
        from planner.build.work_folder import claimed, work_folder
        from planner.calibrate.calibration_file import write_calibration
        from planner.cli.progress import BarProgress
        from planner.moments.find import find_moments
        from planner.probe.kept_pictures import kept_folder, remove_kept
        from planner.recipes import PAPER_RECIPE

        settings = quantizer.settings(method.recipe or PAPER_RECIPE, method.target)
        with cleared_when_refused(out):
            if out.exists() and not force:
                raise UsageError(f"{out} exists", hint="choose another output, or use --force")
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise UsageError(f"{out} cannot be written: it is a folder, or in none")
        unfinished.check()
        base.check()
        opened = open_checkpoint(checkpoint)
        notes = opened.notes(settings.variant)
        show_notes(notes)
        with claimed(out), base.found(opened) as model:
            settings, fallen_back = quantizer.settled(settings, opened, model, calibration_pass)
            with BarProgress(enabled=not json_output) as progress:
                run = calibration_pass.run(calib, unfinished, progress.say)
                moments = find_moments(
                    opened,
                    settings,
                    model,
                    calibration_pass.probe(calib),
                    None,
                    device=run.device,
                    dtype=run.dtype,
                    keep=kept_folder(out),
                    report=progress.say,
                    progress=progress,
                )
                work = run.work(work_folder(out))
                measured = measure_inputs(
                    opened, settings, model, run, work.path, moments=moments, progress=progress
                )
            write_calibration(out, measured.calibration)
            work.remove()
            remove_kept(out)
        notes += fallen_back
        show_notes(fallen_back)
        for warning in measured.warnings:
            warn(warning)
        images, layers = len(measured.calibration.images), len(measured.calibration.mean_squares)
        steps_run = len(measured.calibration.timesteps)
        if json_output:
            print_json(
                {
                    "calibration": str(out),
                    "images": images,
                    "layers": layers,
                    "steps": steps_run,
                    "notes": notes,
                    "warnings": list(measured.warnings),
                }
            )
        else:
            say(f"{out}: {layers} layers, {steps_run} steps, {images} images")
