"""``qplan build`` and ``qplan calibrate``: from a checkpoint to a pack, with data or without.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.command_line import exit_on_error
from planner.cli_options import (
    Allocator,
    Debug,
    GlobalRank,
    Json,
    Keep,
    LocalRank,
    MaximumBits,
    MinimumBits,
    RotationOption,
    RotationSigns,
    Seed,
    Segments,
    TargetOption,
    Variant,
    Vasmp,
    Vatmp,
    WeightStatistic,
    allocation,
    print_json,
    recipe_options,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from artifacts.checkpoint import Checkpoint
    from planner.base_model import BaseModel
    from planner.calibrated_build import CalibrationRun

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
RecipeOption = Annotated[
    str,
    typer.Option(
        help="q-dit4sr, q-dit4sr-residual, rtn, quarot, svdquant,"
        " or q-dit4sr-no-{signs,hsvd,vasmp,vatmp}."
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(help="Stable Diffusion 3.5 medium folder: VAE, scheduler, text encoders."),
]
Prompt = Annotated[str | None, typer.Option(help="Positive prompt instead of ours.")]
NegativePrompt = Annotated[str | None, typer.Option(help="Negative prompt instead of ours.")]
PromptsFile = Annotated[
    Path | None, typer.Option(help="Prompt embeddings (.safetensors) instead of text.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, max=10000, help="Sampling steps (default: the model's).")
]
Guidance = Annotated[
    float | None, typer.Option(min=0, help="Guidance scale (default: the model's).")
]
CalibrationImages = Annotated[int, typer.Option(help="Use at most this many images.")]
CalibrationCrop = Annotated[
    int | None, typer.Option(help="Side of the crops in px (default: one tile's, 128 for DiT4SR).")
]
CalibrationSeed = Annotated[int, typer.Option(help="Seed of images, crops and noise.")]
Device = Annotated[str, typer.Option(help="Where the calibration runs: auto, cpu or cuda.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Throw away an unfinished calibration of this output.")
]


def build(
    checkpoint: CheckpointArgument,
    *,
    target: TargetOption = "W4A4",
    recipe: RecipeOption = "q-dit4sr",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The pack. Default: CHECKPOINT-w4a4.qpack.")
    ] = None,
    base: Base = None,
    calib: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Low-resolution images to calibrate with."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `qplan calibrate` found, instead.")
    ] = None,
    calib_images: CalibrationImages = 32,
    calib_crop: CalibrationCrop = None,
    calib_seed: CalibrationSeed = 0,
    device: Device = "auto",
    restart: Restart = False,
    prompt: Prompt = None,
    negative_prompt: NegativePrompt = None,
    prompts: PromptsFile = None,
    steps: Steps = None,
    guidance: Guidance = None,
    variant: Variant = "q",
    global_rank: GlobalRank = None,
    local_rank: LocalRank = None,
    min_bits: MinimumBits = 2,
    max_bits: MaximumBits = 8,
    vasmp: Vasmp = None,
    weight_statistic: WeightStatistic = None,
    allocator: Allocator = None,
    vatmp: Vatmp = None,
    segments: Segments = None,
    rotation: RotationOption = None,
    rotation_signs: RotationSigns = None,
    keep: Keep = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older pack.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Build a pack from a checkpoint.

    Without --calib or --calibration nothing but weights is read, and every timestep gets the same
    activation bits. An interrupted calibration goes on when the same command is repeated.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint import open_checkpoint
        from artifacts.pack_writer import check_output
        from planner.calibration_file import read_calibration
        from planner.progress import BarProgress

        settings = recipe_options(
            recipe,
            target,
            min_bits=min_bits,
            max_bits=max_bits,
            variant=variant,
            global_rank=global_rank,
            local_rank=local_rank,
            weight_allocation=allocation(vasmp, "vasmp"),
            weight_statistic=weight_statistic,
            allocator=allocator,
            timestep_allocation=allocation(vatmp, "vatmp"),
            segments=segments,
            rotation=rotation,
            rotation_signs=rotation_signs,
            keep=None if keep is None else tuple(keep),
            seed=seed,
        )
        if calib is not None and calibration is not None:
            raise UsageError("a calibration is given twice", hint="--calib or --calibration")
        opened = open_checkpoint(checkpoint)
        output = out or _default_output(checkpoint, str(settings.target))
        check_output(output, force=force)  # before any weight is read
        known = None if calibration is None else read_calibration(calibration)
        model = _base_model(opened, base, prompts, prompt, negative_prompt, steps, guidance)
        if (calib or calibration) and not settings.uses_calibration:
            _warn(f"at {settings.target} recipe {recipe} does not use a calibration; --vatmp does")
            calib = known = None
        with BarProgress(enabled=not json_output) as progress:
            if calib is None:
                from planner.build import build as build_pack

                result = build_pack(
                    opened,
                    output,
                    settings,
                    model,
                    calibration=known,
                    force=force,
                    progress=progress,
                )
            else:
                from planner.calibrated_build import build_calibrated

                run = _run(calib, calib_images, calib_crop, calib_seed, device, restart, progress)
                result = build_calibrated(
                    opened, output, settings, model, run, force=force, progress=progress
                )
        for warning in result.warnings:
            _warn(warning)
        from planner.inspection import size_text, summary

        if json_output:
            facts = {"pack": str(output), "warnings": result.warnings}
            print_json({**facts, **summary(result.manifest)})
        else:
            reached = result.manifest.reached
            print(
                f"{output}: {len(result.manifest.layers)} layers, {reached.weight_bits:.4f} mean"
                f" weight bits, {reached.activation_bits:.4f} activation bits, transformer"
                f" {size_text(result.manifest)}"
            )


def calibrate(
    checkpoint: CheckpointArgument,
    *,
    calib: Annotated[
        Path, typer.Option(metavar="DIR", help="Low-resolution images to calibrate with.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The calibration file.")] = Path(
        "calibration.json"
    ),
    target: TargetOption = "W4A4",
    recipe: RecipeOption = "q-dit4sr",
    base: Base = None,
    calib_images: CalibrationImages = 32,
    calib_crop: CalibrationCrop = None,
    calib_seed: CalibrationSeed = 0,
    device: Device = "auto",
    restart: Restart = False,
    prompt: Prompt = None,
    negative_prompt: NegativePrompt = None,
    prompts: PromptsFile = None,
    steps: Steps = None,
    guidance: Guidance = None,
    variant: Variant = "q",
    global_rank: GlobalRank = None,
    local_rank: LocalRank = None,
    min_bits: MinimumBits = 2,
    max_bits: MaximumBits = 8,
    vasmp: Vasmp = None,
    weight_statistic: WeightStatistic = None,
    allocator: Allocator = None,
    rotation: RotationOption = None,
    rotation_signs: RotationSigns = None,
    keep: Keep = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what a network's layers are fed at every timestep, on low-resolution images.

    The weights are quantized first, as `qplan build` would with the same options; activations are
    not. The file serves any activation target. An interrupted calibration goes on when the same
    command is repeated.
    """
    with exit_on_error(debug=debug):
        import shutil

        from artifacts.checkpoint import open_checkpoint
        from planner.calibrated_build import measure_inputs, work_folder
        from planner.calibration_file import write_calibration
        from planner.progress import BarProgress

        settings = recipe_options(
            recipe,
            target,
            min_bits=min_bits,
            max_bits=max_bits,
            variant=variant,
            global_rank=global_rank,
            local_rank=local_rank,
            weight_allocation=allocation(vasmp, "vasmp"),
            weight_statistic=weight_statistic,
            allocator=allocator,
            rotation=rotation,
            rotation_signs=rotation_signs,
            keep=None if keep is None else tuple(keep),
            seed=seed,
        )
        if out.exists() and not force:
            raise UsageError(f"{out} exists", hint="choose another output, or use --force")
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise UsageError(f"{out} cannot be written: it is a folder, or in none")
        opened = open_checkpoint(checkpoint)
        model = _base_model(opened, base, prompts, prompt, negative_prompt, steps, guidance)
        work = work_folder(out)
        with BarProgress(enabled=not json_output) as progress:
            run = _run(calib, calib_images, calib_crop, calib_seed, device, restart, progress)
            measured = measure_inputs(opened, settings, model, run, work, progress=progress)
        write_calibration(out, measured.calibration)
        shutil.rmtree(work, ignore_errors=True)
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
                    "warnings": list(measured.warnings),
                }
            )
        else:
            print(f"{out}: {layers} layers, {steps_run} steps, {images} images")


def _base_model(
    checkpoint: "Checkpoint",
    base: Path | None,
    prompts: Path | None,
    prompt: str | None,
    negative_prompt: str | None,
    steps: int | None,
    guidance: float | None,
) -> "BaseModel":
    """What goes beside the transformer, sampled the way the options say."""
    from planner.base_model import find_base_model
    from planner.prompts import DEFAULT_NEGATIVE, DEFAULT_POSITIVE, PromptTexts

    texts = None
    if prompt is not None or negative_prompt is not None:
        texts = PromptTexts(
            DEFAULT_POSITIVE if prompt is None else prompt,
            DEFAULT_NEGATIVE if negative_prompt is None else negative_prompt,
        )
    model = find_base_model(checkpoint, base, embeddings=prompts, texts=texts)
    asked: dict[str, Any] = {"steps": steps, "guidance": guidance}
    changes = {name: value for name, value in asked.items() if value is not None}
    return replace(model, sampling=model.sampling.model_copy(update=changes))


def _run(
    folder: Path,
    images: int,
    crop_px: int | None,
    seed: int,
    device: str,
    restart: bool,
    progress: Any,
) -> "CalibrationRun":
    from planner.calibrated_build import CalibrationRun
    from planner.calibration import CalibrationSettings, choose_device

    torch_device, dtype = choose_device(device)
    return CalibrationRun(
        folder,
        CalibrationSettings(images=images, crop_px=crop_px, seed=seed),
        device=torch_device,
        dtype=dtype,
        restart=restart,
        report=progress.say,
    )


def _default_output(checkpoint: Path, target: str) -> Path:
    """A sibling of the checkpoint, named after it, however the user wrote its path."""
    import os

    # Not Path.resolve: a hub cache's link must not be followed to a blob named by its hash.
    plain = Path(os.path.abspath(checkpoint))  # noqa: PTH100
    stem = plain.name if plain.is_dir() else plain.stem
    return plain.parent / f"{stem}-{target.lower()}.qpack"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
