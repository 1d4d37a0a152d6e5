"""From a pack to the pack that its layers learn to be."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.checkpoint.source import check_is_source
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.pack.file_names import COMPANION_FILES
from artifacts.pack.reader import Pack
from artifacts.pack.writer import PackWriter
from planner.build.base_model import BaseModel
from planner.build.model_card import model_card
from planner.build.work_folder import Plan, WorkFolder
from planner.calibrate.images import ChosenImages, choose_images
from planner.calibrate.pipelines import default_crop_px, full_precision_pipeline
from planner.calibrate.run import read_crop
from planner.calibrate.settings import CalibrationSettings
from planner.learned.learn import Learned, Learner
from planner.learned.linear import LearnedLinear
from planner.learned.plan import LearningPlan
from planner.learned.student import make_student
from planner.learned.trajectories import Trajectories
from planner.settings import LEARNED_PREFIX
from planner.weights.layer import signal_to_noise_db
from runtime.pipeline import Pipeline
from runtime.upscale import encode_image
from schemas.errors import UsageError
from schemas.manifest import CalibrationRecord, LayerRecord, Manifest, SettingOrList

APART = 8
"""One picture of so many is kept apart to judge by, at least one."""


@dataclass(frozen=True)
class LearnedPack:
    """What was written.

    Attributes:
        manifest: of the new pack.
        learned: what came of it.
        warnings: what the user should know, one line each.
    """

    manifest: Manifest
    learned: Learned
    warnings: list[str]


@dataclass(frozen=True)
class LearningRun:
    """Where and on what to learn.

    Attributes:
        images: folder of low-resolution images.
        settings: how they are drawn.
        device: where.
        work: for an unfinished run; None for keeping nothing.
        report: told what is going on, one line at a time.
    """

    images: Path
    settings: CalibrationSettings
    device: torch.device
    work: WorkFolder | None = None
    report: Callable[[str], None] = lambda _line: None


def learn_pack(
    pack: Pack,
    checkpoint: Checkpoint,
    output: Path,
    method: str,
    plan: LearningPlan,
    run: LearningRun,
    *,
    force: bool = False,
) -> LearnedPack:
    """Write what ``pack`` learns to ``output``.

    Args:
        pack: opened; with VAE and prompts.
        checkpoint: its source.
        output: directory of the new pack; appears complete or not at all.
        method: name of the plan, for the manifest.
        plan: how to learn.
        run: where, and from which pictures.
        force: replace an older pack.

    Raises:
        UsageError: the checkpoint is another, there are fewer than two images, the pack lacks VAE
            or prompts, or has learned already, or the output exists.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
    """
    if any(name.startswith(LEARNED_PREFIX) for name in pack.manifest.recipe.settings):
        raise UsageError(
            f"{pack.path} has learned already", hint="give the pack that it was made from"
        )
    check_is_source(checkpoint, pack.manifest)
    base = _base_of(pack)
    variant = pack.architecture.variant
    pipeline = full_precision_pipeline(checkpoint, variant, base, run.device, torch.float32)
    images = choose_images(run.images, run.settings, run.settings.crop_px or default_crop_px(base))
    controls, warnings = _controls(pipeline, images)
    student = make_student(
        pack,
        checkpoint,
        run.device,
        parts=plan.parts,
        update_rank=plan.update_rank,
        seed=plan.seed,
    )
    if not any(True for layer in student.layers for _ in layer.trainables()):
        raise UsageError(
            f"{pack.path} has nothing of {', '.join(plan.parts)}",
            hint="smoothing and factors are there where its recipe made them",
        )
    run.report(f"{len(controls)} pictures through the unquantized network")
    apart = max(1, len(controls) // APART)
    seed = run.settings.seed
    pictures = Trajectories(pipeline, controls[apart:], seed + apart)
    kept_apart = Trajectories(pipeline, controls[:apart], seed)
    if run.work is not None:
        run.work.open(_plan_of(pack, method, plan, run, images))
    learned = Learner(
        student,
        pipeline.network,
        pipeline.prompts,
        pipeline.sampling.guidance,
        plan,
        work=None if run.work is None else run.work.path,
        report=run.report,
    ).run(pictures, kept_apart)
    record = CalibrationRecord(
        images=len(controls),
        crop_px=images.crop_px,
        seed=seed,
        steps=base.sampling.steps,
        guidance=base.sampling.guidance,
        shift=base.sampling.shift,
        start_sigma=base.sampling.start_sigma,
    )
    layers = {layer.name: layer for layer in student.layers}
    manifest = _write(pack, output, layers, method, plan, record, force=force)
    return LearnedPack(manifest, learned, [*images.warnings, *warnings])


def _plan_of(
    pack: Pack, method: str, plan: LearningPlan, run: LearningRun, images: ChosenImages
) -> Plan:
    """All that the state of an unfinished run depends on."""
    return {
        "pack": pack.manifest.checksum,
        "learning": json.loads(json.dumps({"method": method, **asdict(plan)})),
        "images": [image.model_dump(mode="json") for image in images.records],
        "seed": run.settings.seed,
        "device": run.device.type,
        "versions": {"qdit4sr": version("qdit4sr"), "torch": torch.__version__},
    }


def _base_of(pack: Pack) -> BaseModel:
    """What a pack has beside its transformer.

    Raises:
        UsageError: it has no VAE or no prompts.
    """
    prompts = pack.prompts()
    if prompts is None or not (pack.path / COMPANION_FILES[0]).is_file():
        raise UsageError(
            f"{pack.path} holds no VAE or prompts", hint="build it with --base, then learn"
        )
    return BaseModel(pack.manifest.sampling, pack.path, prompts, [])


@torch.inference_mode()
def _encoded(pipeline: Pipeline, images: ChosenImages) -> list[Tensor]:
    pairs = zip(images.paths, images.records, strict=True)
    crops = (read_crop(path, record) for path, record in pairs)
    return [encode_image(pipeline, crop, pipeline.sampling).control for crop in crops]


def _controls(pipeline: Pipeline, images: ChosenImages) -> tuple[list[Tensor], list[str]]:
    """Control latents of the most frequent size, and a warning for those of others.

    Raises:
        UsageError: there are fewer than two.
    """
    every = [control.to(pipeline.device).clone() for control in _encoded(pipeline, images)]
    shapes = Counter(control.shape for control in every)
    shape = shapes.most_common(1)[0][0]
    chosen = [control for control in every if control.shape == shape]
    if len(chosen) < 2:
        raise UsageError(
            "learning takes at least two images of one size, one of them to judge by",
            hint="images of at least the crop's size are cut to it",
        )
    left = len(every) - len(chosen)
    return chosen, [f"{left} images of another size are left out"] if left else []


def _write(
    pack: Pack,
    output: Path,
    layers: Mapping[str, LearnedLinear],
    method: str,
    plan: LearningPlan,
    calibration: CalibrationRecord,
    *,
    force: bool,
) -> Manifest:
    old = pack.manifest
    records = dict(old.layers)
    with PackWriter(output, force=force) as writer:
        for name in pack.layer_names:
            folded = layers[name].folded()
            writer.add_layer(folded)
            records[name] = _record(folded, layers[name].weight, old.layers[name])
        for name in pack.tensor_names:
            writer.add_tensor(name, pack.tensor(name))
        if pack.table_header is not None:
            for name in pack.architecture.modulations.layers:
                writer.add_modulation(name, pack.modulation_rows(name))
        for name in COMPANION_FILES:
            if name in old.files:
                writer.add_file(name, pack.path / name)
        prompts = pack.prompts()
        if prompts is not None:
            writer.add_prompts(prompts)
        settings: dict[str, SettingOrList] = {
            **old.recipe.settings,
            **{f"{LEARNED_PREFIX}{name}": _plain(value) for name, value in asdict(plan).items()},
        }
        manifest = old.model_copy(
            update={
                "recipe": old.recipe.model_copy(update={"name": method, "settings": settings}),
                "calibration": calibration,
                "layers": records,
            }
        )
        return writer.finish(manifest, pack.bit_grid, model_card)


def _plain(value: object) -> SettingOrList:
    return list(value) if isinstance(value, tuple) else value  # type: ignore[return-value]


def _record(folded: QuantizedWeight, weight: Tensor, old: LayerRecord) -> LayerRecord:
    """The old record with the error of the new weight."""
    wanted = weight.double().cpu()
    noise = float((folded.decode() - wanted).square().sum())
    error_db = signal_to_noise_db(float(wanted.square().sum()), noise)
    return old.model_copy(update={"error_db": error_db, "error_share": None})
