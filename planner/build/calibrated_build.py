"""Build with calibration images: quantize the weights, run the network, then decide.

The weights as quantized, with the same activation bits everywhere, and what single images gave lie
in a work folder until the end (`planner.build.work_folder`). A command that is interrupted, or
killed, goes on from them when it is repeated. Recipes that search their smoothing are the other
way round: there the unquantized network is measured first, and the weights are quantized with what
was learned.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from artifacts.checkpoint.reader import Checkpoint
from artifacts.pack.reader import Pack, open_pack, verify_pack
from artifacts.pack.writer import PackWriter, check_output, remove_stale_partials
from planner.allocate.grid import make_grid, mean_activation_bits, rounded_down
from planner.build.base_model import BaseModel
from planner.build.build import BuildResult, build
from planner.build.inventory import take_inventory
from planner.build.manifest import layer_warnings
from planner.build.model_card import model_card
from planner.build.progress import Progress, Silent
from planner.build.work_folder import WEIGHTS, WorkFolder, make_plan, work_folder
from planner.calibrate.cost import estimate_cost
from planner.calibrate.images import choose_images
from planner.calibrate.pipelines import (
    base_digest,
    default_crop_px,
    full_precision_pipeline,
    quantized_pipeline,
)
from planner.calibrate.run import calibrate
from planner.calibrate.settings import CalibrationSettings
from planner.moments.kept import SecondMoments
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from schemas.calibration import Calibration
from schemas.errors import PackError
from schemas.manifest import CalibrationRecord, RecipeRecord, Source


@dataclass(frozen=True)
class CalibrationRun:
    """How to calibrate.

    Attributes:
        folder: low-resolution images.
        settings: how they are drawn.
        device, dtype: where and how the network runs.
        resume: say so where there is no unfinished build to go on with.
        restart: throw away an unfinished build instead of going on with it.
        report: told what is gone on with, and the predicted cost, one line each.
    """

    folder: Path
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    resume: bool = False
    restart: bool = False
    report: Callable[[str], None] = lambda _line: None

    def work(self, path: Path) -> WorkFolder:
        """The work folder at ``path``, treated as this run says."""
        return WorkFolder(path, resume=self.resume, restart=self.restart, report=self.report)


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


def build_calibrated(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    run: CalibrationRun,
    *,
    moments: SecondMoments | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a pack at ``output`` with what the images in ``run.folder`` tell.

    It is the pack that `planner.build.build` makes of the calibration that `measure_inputs` finds.

    Raises:
        UsageError: as `build` and `measure_inputs`.
        ResourceError: the disk is full.
    """
    check_output(output, force=force)
    settings = settings.resolved(checkpoint)
    work = run.work(work_folder(output))
    measured = measure_inputs(
        checkpoint, settings, base, run, work.path, moments=moments, progress=progress
    )
    if measured.weights is None:
        result = build(
            checkpoint,
            output,
            settings,
            base,
            calibration=measured.calibration,
            moments=moments,
            force=force,
            progress=progress,
            work=work,
            source=measured.calibration.source,
        )
    else:
        pack = open_pack(measured.weights)
        result = regrid(pack, output, settings, measured.calibration, force=force)
        result.warnings.extend(base.warnings)
    work.remove()
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
    moments: SecondMoments | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Calibrate, or go on with a calibration that was interrupted.

    Args:
        checkpoint: the source.
        settings: how weights are quantized.
        base: autoencoder, prompts and sampling settings to run with.
        run: images, device.
        work: folder for what is unfinished; made when missing, left to the caller to remove.
        moments: of layers' inputs, for settings that round by them.
        progress: told about every layer and image.

    Raises:
        UsageError: there are no images, no VAE, or ``work`` belongs to another build.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
    """
    progress = progress or Silent()
    settings = settings.resolved(checkpoint)
    crop_px = run.settings.crop_px or default_crop_px(base)
    images = choose_images(run.folder, run.settings, crop_px)
    record = CalibrationRecord(
        images=len(images.records),
        crop_px=images.crop_px,
        seed=run.settings.seed,
        steps=base.sampling.steps,
        guidance=base.sampling.guidance,
        shift=base.sampling.shift,
        start_sigma=base.sampling.start_sigma,
    )
    source = Source(files=tuple(checkpoint.source_files()))
    folder = run.work(work)
    folder.open(
        make_plan(
            source,
            settings,
            calibration={
                **record.model_dump(mode="json"),
                "crops": [image.model_dump(mode="json") for image in images.records],
                "device": f"{run.device.type} {run.dtype}",
                "base": base_digest(base),
            },
            **({} if moments is None else {"moments": moments.digest}),
        )
    )

    weights = None
    if settings.searches_smoothing:
        layers = take_inventory(checkpoint, settings).quantized
        pipeline = full_precision_pipeline(
            checkpoint, settings.variant, base, run.device, run.dtype
        )
    else:
        weights = work / WEIGHTS
        if not _is_sound(weights):
            shutil.rmtree(weights, ignore_errors=True)
            remove_stale_partials(weights)
            with folder.removed_when_refused():
                build(
                    checkpoint,
                    weights,
                    settings,
                    base,
                    moments=moments,
                    progress=progress,
                    work=folder,
                    source=source,
                )
            folder.remove_layers()
        pack = open_pack(weights)
        layers = tuple(pack.layer_names)
        pipeline = quantized_pipeline(pack, base, run.device, run.dtype)
    run.report(str(estimate_cost(pipeline, images)))
    found = calibrate(
        pipeline,
        layers,
        images,
        seed=run.settings.seed,
        channels=settings.searches_smoothing,
        work=work,
        progress=progress,
    )
    calibration = Calibration(
        source=source,
        variant=checkpoint.architecture(settings.variant).variant,
        network="full-precision" if weights is None else "quantized",
        recipe=RecipeRecord(name=settings.recipe, settings=settings.recorded()),
        sampling=record,
        images=images.records,
        timesteps=sampling_timesteps(base.sampling),
        mean_squares=found.mean_squares,
        channels=found.channels,
    )
    return Measured(calibration, weights, images.warnings)


def _is_sound(path: Path) -> bool:
    try:
        verify_pack(path)
    except PackError:
        return False
    return True
