"""One run of learning: from a pack, its source and some pictures to a network that has learned."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.checkpoint.source import check_is_source
from artifacts.pack.file_names import COMPANION_FILES
from artifacts.pack.reader import Pack
from planner.build.base_model import BaseModel
from planner.build.work_folder import Plan, WorkFolder
from planner.calibrate.images import ChosenImages, choose_images
from planner.calibrate.pipelines import default_crop_px, full_precision_pipeline
from planner.calibrate.run import read_crop
from planner.calibrate.settings import CalibrationSettings
from planner.learned.balance import balance_smoothing, channel_maxima
from planner.learned.learn import Learned, Learner
from planner.learned.plan import LearningPlan
from planner.learned.student import Student, make_student
from planner.learned.trajectories import Trajectories
from planner.settings import LEARNED_PREFIX
from runtime.pipeline import Pipeline
from runtime.upscale import encode_image
from schemas.errors import UsageError
from schemas.manifest import CalibrationRecord

APART = 8
"""One picture of so many is kept apart to judge by, at least one."""


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


@dataclass(frozen=True, eq=False)
class LearnedNetwork:
    """A network that has learned.

    Attributes:
        student: it.
        learned: what came of it.
        calibration: what it learned from.
        warnings: what the user should know, one line each.
    """

    student: Student
    learned: Learned
    calibration: CalibrationRecord
    warnings: list[str]


def learn(
    pack: Pack, checkpoint: Checkpoint, method: str, plan: LearningPlan, run: LearningRun
) -> LearnedNetwork:
    """Let the network of ``pack`` learn.

    Args:
        pack: opened; with VAE and prompts.
        checkpoint: its source.
        method: name of the plan.
        plan: how to learn.
        run: where, and from which pictures.

    Raises:
        UsageError: the checkpoint is another, there are fewer than two images, or the pack lacks
            VAE or prompts, has learned already, or has nothing of what is to be learned.
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
    apart = max(1, len(controls) // APART)
    seed = run.settings.seed
    student = None
    if plan.balance == "none":  # before anything that takes long: it may be refused
        student = _student(pack, checkpoint, plan, run)
    run.report(f"{len(controls)} pictures through the unquantized network")
    pictures = Trajectories(pipeline, controls[apart:], seed + apart)
    kept_apart = Trajectories(pipeline, controls[:apart], seed)
    if student is None:
        student = _balanced_student(pack, checkpoint, plan, run, pipeline, pictures)
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
    return LearnedNetwork(student, learned, record, [*images.warnings, *warnings])


def _student(
    pack: Pack,
    checkpoint: Checkpoint,
    plan: LearningPlan,
    run: LearningRun,
    smoothing: dict[str, Tensor] | None = None,
) -> Student:
    student = make_student(pack, checkpoint, run.device, plan, smoothing)
    learns = any(True for layer in student.layers for _ in layer.trainables())
    if not learns and not plan.groups:
        raise UsageError(
            f"{pack.path} has nothing of {', '.join(plan.all_parts)}",
            hint="smoothing and factors are there where its recipe made them",
        )
    return student


def _balanced_student(
    pack: Pack,
    checkpoint: Checkpoint,
    plan: LearningPlan,
    run: LearningRun,
    pipeline: Pipeline,
    pictures: Trajectories,
) -> Student:
    """The student with smoothing by the plan's formula."""
    maxima = channel_maxima(
        pipeline.network,
        pack.layer_names,
        pictures,
        pipeline.prompts,
        pipeline.sampling.guidance,
        plan.batch,
    )
    smoothing = {
        name: balance_smoothing(
            plan.balance, maxima[name].cpu(), checkpoint.tensor(f"{name}.weight")
        )
        for name in pack.layer_names
    }
    return _student(pack, checkpoint, plan, run, smoothing)


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
        UsageError: it has no VAE or no prompts, or its network reads none.
    """
    family = pack.architecture.family
    if family.reads_picture:
        raise UsageError(f"{family.title} cannot learn: it reads features of the picture")
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
