"""``qplan build`` and ``qplan calibrate``: from a checkpoint to a pack, with data or without.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.option_groups import grouped_options
from artifacts.cli.output import print_json, say, tell
from planner.cli.build_options import (
    BaseOptions,
    MethodOptions,
    PassOptions,
    QuantizerOptions,
    UnfinishedOptions,
)
from planner.cli.options import Debug, Json, Segments, Vatmp, allocation, show_notes
from schemas.errors import UsageError

if TYPE_CHECKING:
    from artifacts.checkpoint.reader import Checkpoint
    from planner.build.base_model import BaseModel
    from planner.cli.progress import BarProgress
    from planner.settings import BuildSettings
    from schemas.sensitivity import SensitivityMap

BUILD_EXAMPLE = """
Examples:

qplan build dit4sr.safetensors --target W4A4 --base stable-diffusion-3.5-medium -o model.qpack

qplan build dit4sr/ --target W4A4 --calib low_resolution_photos/

qplan build dit4sr/ --target W3.5A4 --keep 'norm1' --allocator exact
"""
CALIBRATE_EXAMPLE = """
Example:

qplan calibrate dit4sr/ --calib low_resolution_photos/ -o calibration.json

qplan build dit4sr/ --target W4A4 --calibration calibration.json
"""

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file.")
]


@grouped_options
def build(
    checkpoint: CheckpointArgument,
    *,
    method: MethodOptions,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The pack. Default: CHECKPOINT-w4a4.qpack.")
    ] = None,
    calib: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Low-resolution images to calibrate with."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `qplan calibrate` found, instead.")
    ] = None,
    sensitivity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `qplan probe` found, for recipes that go by it."),
    ] = None,
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

    Without --calib or --calibration nothing but weights is read, and every timestep gets the same
    activation bits. An interrupted build goes on when the same command is repeated, with or without
    --resume; the pack is the same as if it had not been interrupted.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.pack.writer import check_output
        from planner.build.left_over import cleared_when_refused
        from planner.build.work_folder import claimed
        from planner.calibrate.calibration_file import read_calibration
        from planner.cli.progress import BarProgress
        from planner.inspect.inspection import size_text, summary
        from planner.probe.kept_pictures import kept_folder, remove_kept

        settings = quantizer.settings(
            method, timestep_allocation=allocation(vatmp, "vatmp"), segments=segments
        )
        if calib is not None and calibration is not None:
            raise UsageError("a calibration is given twice", hint="--calib or --calibration")
        unfinished.check()
        base.check()
        opened = open_checkpoint(checkpoint)
        notes = opened.notes(settings.variant)
        show_notes(notes)
        output = out or _default_output(checkpoint, str(settings.target))
        with cleared_when_refused(output):
            check_output(output, force=force)  # before any weight is read
        with claimed(output), base.found(opened) as model:
            settings, fallen_back = quantizer.settled(settings, opened, model)
            known = None if calibration is None else read_calibration(calibration)
            if (calib or calibration) and not (
                settings.uses_calibration or settings.uses_sensitivity
            ):
                _warn(
                    f"at {settings.target} recipe {method.recipe} does not use a calibration;"
                    " --vatmp does"
                )
                calib = known = None
            with BarProgress(enabled=not json_output) as progress:
                sensitive = None
                if settings.uses_sensitivity:
                    sensitive = _sensitivity(
                        sensitivity,
                        opened,
                        settings,
                        model,
                        calib,
                        calibration_pass,
                        kept_folder(output),
                        progress,
                    )
                    calib = None
                if calib is None:
                    from planner.build.resumable import build_resumable

                    result = build_resumable(
                        opened,
                        output,
                        settings,
                        model,
                        unfinished.work(output, progress.say),
                        calibration=known,
                        sensitivity=sensitive,
                        force=force,
                        progress=progress,
                        device=calibration_pass.quantizing_device(),
                    )
                else:
                    from planner.build.calibrated_build import build_calibrated

                    run = calibration_pass.run(calib, unfinished, progress.say)
                    result = build_calibrated(
                        opened, output, settings, model, run, force=force, progress=progress
                    )
            remove_kept(output)
        notes += fallen_back
        show_notes(fallen_back)
        for warning in result.warnings:
            _warn(warning)
        if json_output:
            facts = {"pack": str(output), "notes": notes, "warnings": result.warnings}
            print_json({**facts, **summary(result.manifest)})
        else:
            reached = result.manifest.reached
            say(
                f"{output}: {len(result.manifest.layers)} layers, {reached.weight_bits:.4f} mean"
                f" weight bits, {reached.activation_bits:.4f} activation bits, transformer"
                f" {size_text(result.manifest)}"
            )


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

        settings = quantizer.settings(method)
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
            settings, fallen_back = quantizer.settled(settings, opened, model)
            with BarProgress(enabled=not json_output) as progress:
                run = calibration_pass.run(calib, unfinished, progress.say)
                work = run.work(work_folder(out))
                measured = measure_inputs(
                    opened, settings, model, run, work.path, progress=progress
                )
            write_calibration(out, measured.calibration)
            work.remove()
        notes += fallen_back
        show_notes(fallen_back)
        for warning in measured.warnings:
            _warn(warning)
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


def _sensitivity(
    file: Path | None,
    checkpoint: "Checkpoint",
    settings: "BuildSettings",
    model: "BaseModel",
    photos: Path | None,
    options: PassOptions,
    keep: Path,
    progress: "BarProgress",
) -> "SensitivityMap | None":
    """What a file says, or a probe finds; None where there is nothing to run the network with.

    Raises:
        UsageError: the file is damaged, or a photo.
    """
    from planner.calibrate.device import choose_device
    from planner.probe.find import find_sensitivity
    from planner.probe.run import ProbeSettings

    device, dtype = choose_device(options.device)
    return find_sensitivity(
        file,
        checkpoint,
        settings,
        model,
        ProbeSettings(photos, crop_px=options.calib_crop, seed=options.calib_seed),
        device=device,
        dtype=dtype,
        keep=keep,
        report=progress.say,
        progress=progress,
    )


def _default_output(checkpoint: Path, target: str) -> Path:
    """A sibling of the checkpoint, named after it, however the user wrote its path."""
    import os

    # Not Path.resolve: a hub cache's link must not be followed to a blob named by its hash.
    plain = Path(os.path.abspath(checkpoint))  # noqa: PTH100
    stem = plain.name if plain.is_dir() else plain.stem
    return plain.parent / f"{stem}-{target.lower()}.qpack"


def _warn(text: str) -> None:
    tell(f"warning: {text}")
