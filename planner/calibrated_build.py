"""Build with calibration images: quantize the weights, run the network, then decide.

    weights.qpack        the weights as quantized, with the same activation bits everywhere
    image-00000 ...      what single images gave
    plan.json            what all of this is for

lie in a work folder until the end. A command that is interrupted, or killed, goes on from them when
it is repeated. Recipes that smooth are the other way round: there the unquantized network is
measured first, and the weights are quantized with what was learned.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from artifacts.checkpoint import Checkpoint
from artifacts.pack import Pack, open_pack
from artifacts.pack_writer import PackWriter
from planner.base_model import BaseModel
from planner.build import BuildResult, Progress, Silent, build, layer_warnings
from planner.calibration import (
    CalibrationSettings,
    ChosenImages,
    calibrate,
    choose_images,
    default_crop_px,
    estimate_cost,
    full_precision_pipeline,
    quantized_pipeline,
)
from planner.grid import make_grid, mean_activation_bits, rounded_down
from planner.inventory import take_inventory
from planner.model_card import model_card
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from schemas.calibration import Calibration
from schemas.errors import PackError, ResourceError, UsageError
from schemas.json_io import format_json, read_json_file
from schemas.manifest import CalibrationRecord, Recipe, Source

PLAN = "plan.json"
WEIGHTS = "weights.qpack"


@dataclass(frozen=True)
class CalibrationRun:
    """How to calibrate.

    Attributes:
        folder: low-resolution images.
        settings: how they are drawn.
        device, dtype: where and how the network runs.
        restart: throw away an unfinished pass instead of going on with it.
        report: told the predicted cost, one line.
    """

    folder: Path
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    restart: bool = False
    report: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True)
class Measured:
    """The result of a pass.

    Attributes:
        calibration: what was measured.
        weights: the pack with the weights it was measured on, in the work folder; None where the
            network was not quantized.
        warnings: what the user should know, one line each.
    """

    calibration: Calibration
    weights: Path | None
    warnings: tuple[str, ...]


def work_folder(output: Path) -> Path:
    """Where an unfinished pass for ``output`` is kept."""
    return output.absolute().with_name(f".{output.absolute().name}.calibration")


def build_calibrated(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    run: CalibrationRun,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a pack at ``output`` with what the images in ``run.folder`` tell.

    It is the pack that `planner.build.build` makes of the calibration that `measure_inputs` finds.

    Raises:
        UsageError: as `build` and `measure_inputs`.
        ResourceError: the disk is full.
    """
    work = work_folder(output)
    measured = measure_inputs(checkpoint, settings, base, run, work, progress=progress)
    if measured.weights is None:
        result = build(
            checkpoint,
            output,
            settings,
            base,
            calibration=measured.calibration,
            force=force,
            progress=progress,
        )
    else:
        pack = open_pack(measured.weights)
        result = regrid(pack, output, settings, measured.calibration, force=force)
        result.warnings.extend(base.warnings)
    shutil.rmtree(work, ignore_errors=True)
    return BuildResult(result.manifest, [*measured.warnings, *result.warnings])


def regrid(
    pack: Pack,
    output: Path,
    settings: BuildSettings,
    calibration: Calibration,
    *,
    force: bool = False,
) -> BuildResult:
    """Write ``pack`` to ``output`` with the bit grid that a calibration gives.

    Raises:
        UsageError: the output exists.
        ResourceError: the disk is full.
    """
    old = pack.manifest
    bits = {name: record.weight_bits for name, record in old.layers.items()}
    grid, warnings = make_grid(settings, bits, pack.bit_grid.timesteps, calibration)
    reached = old.reached.model_copy(
        update={"activation_bits": rounded_down(mean_activation_bits(grid))}
    )
    manifest = old.model_copy(update={"reached": reached, "calibration": calibration.sampling})
    with PackWriter(output, force=force) as writer:
        writer.adopt(pack)
        written = writer.finish(manifest, grid, model_card)
    return BuildResult(written, [*warnings, *layer_warnings(written.layers)])


def measure_inputs(
    checkpoint: Checkpoint,
    settings: BuildSettings,
    base: BaseModel,
    run: CalibrationRun,
    work: Path,
    *,
    progress: Progress | None = None,
) -> Measured:
    """Calibrate, or go on with a calibration that was interrupted.

    Args:
        checkpoint: the source.
        settings: how weights are quantized.
        base: autoencoder, prompts and sampling settings to run with.
        run: images, device.
        work: folder for what is unfinished; made when missing, left to the caller to remove.
        progress: told about every layer and image.

    Raises:
        UsageError: there are no images, no VAE, or ``work`` belongs to another calibration.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
    """
    progress = progress or Silent()
    crop_px = run.settings.crop_px or default_crop_px(base)
    images = choose_images(run.folder, run.settings, crop_px)
    record = CalibrationRecord(
        images=len(images.records),
        crop_px=images.crop_px,
        seed=run.settings.seed,
        steps=base.sampling.steps,
        guidance=base.sampling.guidance,
        shift=base.sampling.shift,
    )
    source = Source(files=tuple(checkpoint.source_files()))
    _open_work(work, _plan(source, settings, run, images, record), restart=run.restart)

    weights = None
    if settings.smoothing:
        layers = take_inventory(checkpoint, settings).quantized
        pipeline = full_precision_pipeline(
            checkpoint, settings.variant, base, run.device, run.dtype
        )
    else:
        weights = work / WEIGHTS
        if not _is_pack(weights):
            shutil.rmtree(weights, ignore_errors=True)
            build(checkpoint, weights, settings, base, progress=progress)
        pack = open_pack(weights)
        layers = tuple(pack.layer_names)
        pipeline = quantized_pipeline(pack, base, run.device, run.dtype)
    run.report(str(estimate_cost(pipeline, images)))
    found = calibrate(
        pipeline,
        layers,
        images,
        seed=run.settings.seed,
        channels=settings.smoothing,
        work=work,
        progress=progress,
    )
    calibration = Calibration(
        source=source,
        variant=settings.variant,
        network="full-precision" if weights is None else "quantized",
        recipe=Recipe(name=settings.recipe, settings=settings.recorded()),
        sampling=record,
        images=images.records,
        timesteps=sampling_timesteps(base.sampling.steps, base.sampling.shift),
        mean_squares=found.mean_squares,
        channels=found.channels,
    )
    return Measured(calibration, weights, images.warnings)


def _plan(
    source: Source,
    settings: BuildSettings,
    run: CalibrationRun,
    images: ChosenImages,
    record: CalibrationRecord,
) -> dict[str, Any]:
    """Everything that the results in a work folder depend on."""
    return {
        "source": [file.sha256 for file in source.files],
        "recipe": {"name": settings.recipe, **settings.recorded()},
        "sampling": record.model_dump(mode="json"),
        "images": [image.model_dump(mode="json") for image in images.records],
        "device": f"{run.device.type} {run.dtype}",
        "versions": [version("qdit4sr"), torch.__version__],
    }


def _open_work(work: Path, plan: dict[str, Any], *, restart: bool) -> None:
    """Make the work folder, or make sure that what it holds belongs to ``plan``."""
    file = work / PLAN
    if restart:
        shutil.rmtree(work, ignore_errors=True)
    if file.is_file():
        known = read_json_file(file, where=str(file), error=UsageError)
        differing = [
            key for key in plan if not isinstance(known, dict) or known.get(key) != plan[key]
        ]
        if differing:
            raise UsageError(
                f"an unfinished calibration for this output had other {', '.join(differing)}",
                hint="repeat its command to go on with it, or start anew with --restart",
            )
        return
    try:
        work.mkdir(exist_ok=True)
        partial = work / f"{PLAN}.partial"
        partial.write_text(format_json(plan), encoding="utf-8")
        partial.replace(file)
    except OSError as cause:
        raise ResourceError(f"{work}: cannot be written: {cause.strerror or cause}") from cause


def _is_pack(path: Path) -> bool:
    try:
        open_pack(path)
    except PackError:
        return False
    return True
