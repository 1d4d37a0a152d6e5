"""The options of ``qplan build`` and ``qplan calibrate``, in groups, each with what it means.

`artifacts.cli.option_groups` turns a group into single options. Heavy imports stand inside the
methods that need them: ``--help`` goes through this module.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from artifacts.cli.base_options import Base, ClipG, ClipL, T5xxl, Tokenizers
from planner.cli.options import (
    ActivationScale,
    Allocator,
    Budget,
    Effort,
    FactorBits,
    FactorFit,
    GlobalRank,
    Keep,
    LocalRank,
    MaximumBits,
    MinimumBits,
    Modulation,
    RotationOption,
    RotationSigns,
    Seed,
    Smoothing,
    SoftmaxBits,
    TargetOption,
    Variant,
    Vasmp,
    WeightRounding,
    WeightScale,
    WeightStatistic,
    allocation,
    recipe_options,
)
from schemas.choices import check_guidance
from schemas.errors import UsageError

if TYPE_CHECKING:
    import torch

    from artifacts.checkpoint.reader import Checkpoint
    from artifacts.family import Architecture
    from planner.build.base_model import BaseModel
    from planner.build.calibrated_build import CalibrationRun
    from planner.build.work_folder import WorkFolder
    from planner.calibrate.settings import CalibrationSettings
    from planner.probe.run import ProbeSettings
    from planner.recipe_choice import RecipeChoice
    from planner.settings import BuildSettings


@dataclass(frozen=True)
class MethodOptions:
    """What to aim at, and by which method."""

    panel: ClassVar[str] = "Method"

    target: TargetOption = "W4A4"
    recipe: Annotated[
        str | None,
        typer.Option(
            help="standard (default of a build where the network can be probed in sensible time),"
            " q-dit4sr (default elsewhere, and of a calibration), q-dit4sr-residual, rtn, quarot,"
            " svdquant, or q-dit4sr-no-{signs,hsvd,vasmp,vatmp}; `qplan recipes` says what each is."
        ),
    ] = None


@dataclass(frozen=True)
class QuantizerOptions:
    """How weights are quantized, where that differs from the recipe."""

    panel: ClassVar[str] = "Quantizer (default: the recipe's)"

    variant: Variant = None
    global_rank: GlobalRank = None
    local_rank: LocalRank = None
    min_bits: MinimumBits = 2
    max_bits: MaximumBits = 8
    vasmp: Vasmp = None
    weight_statistic: WeightStatistic = None
    allocator: Allocator = None
    rotation: RotationOption = None
    rotation_signs: RotationSigns = None
    budget: Budget = None
    factor_bits: FactorBits = None
    weight_scale: WeightScale = None
    weight_rounding: WeightRounding = None
    factor_fit: FactorFit = None
    smoothing: Smoothing = None
    activation_scale: ActivationScale = None
    softmax_bits: SoftmaxBits = None
    modulation: Modulation = None
    effort: Effort = None
    keep: Keep = None
    seed: Seed = 0

    def settings(self, recipe: str, target: str, **more: Any) -> "BuildSettings":
        """Settings of the recipe with these options, and ``more``, in their place.

        Raises:
            UsageError: there is no such recipe, the target cannot be reached, or a value is wrong.
        """
        return recipe_options(recipe, target, **self._fields(), **more)

    def chosen(self, **more: object) -> set[str]:
        """Fields of the settings that these options, and ``more``, give a value."""
        return {name for name, value in (self._fields() | more).items() if value is not None}

    def _fields(self) -> dict[str, Any]:
        """Field of the settings -> value, None where the recipe's own stands."""
        fields = asdict(self)
        fields["weight_allocation"] = allocation(fields.pop("vasmp"), "vasmp")
        fields["keep"] = None if self.keep is None else tuple(self.keep)
        return fields

    def settled(
        self,
        settings: "BuildSettings",
        checkpoint: "Checkpoint",
        model: "BaseModel",
        calibration_pass: "PassOptions",
    ) -> "tuple[BuildSettings, list[str]]":
        """Settings that can be built with ``model``, and notes where they are not the recipe's.

        Args:
            settings: as these options and the recipe have them.
            checkpoint: the source.
            model: what goes beside it.
            calibration_pass: how the network would be run.

        Raises:
            UsageError: these options ask for what cannot be built.
        """
        from planner.build.modulation import settle_modulation

        architecture = checkpoint.architecture(settings.variant)
        settings, notes = settle_modulation(
            settings, architecture, model, asked=self.modulation is not None
        )
        if not settings.uses_moments:
            return settings, notes
        from planner.calibrate.device import choose_device
        from planner.moments.settle import asks_for_moments, settle_moments

        device, _ = choose_device(calibration_pass.device)
        settings, more = settle_moments(
            settings,
            checkpoint,
            model,
            calibration_pass.probe(None),
            device,
            asked=asks_for_moments(self._fields()),
        )
        return settings, [*notes, *more]


@dataclass(frozen=True)
class BaseOptions:
    """What goes beside the transformer, and how it is sampled."""

    panel: ClassVar[str] = "Base model and sampling"

    base: Base = None
    clip_l: ClipL = None
    clip_g: ClipG = None
    t5xxl: T5xxl = None
    tokenizers: Tokenizers = None
    prompt: Annotated[str | None, typer.Option(help="Positive prompt instead of ours.")] = None
    negative_prompt: Annotated[
        str | None, typer.Option(help="Negative prompt instead of ours.")
    ] = None
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt embeddings (.safetensors) instead of text.")
    ] = None
    steps: Annotated[
        int | None, typer.Option(min=1, max=10000, help="Sampling steps (default: the model's).")
    ] = None
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale (default: the model's).")
    ] = None

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: the guidance cannot be used.
        """
        if self.guidance is not None:
            check_guidance(self.guidance)

    @contextlib.contextmanager
    def found(self, checkpoint: "Checkpoint") -> "Iterator[BaseModel]":
        """Have all that goes beside the transformer of ``checkpoint`` while the block runs.

        Raises:
            UsageError: prompts are given twice, or as text that nothing can encode.
            CheckpointError: the base is incomplete or damaged.
        """
        from planner.build.base_model import find_base_model
        from runtime.base.files import BaseFiles
        from runtime.base.folder import base_folder
        from runtime.prompts.texts import PromptTexts

        texts = PromptTexts(self.prompt, self.negative_prompt)
        asked: dict[str, Any] = {"steps": self.steps, "guidance": self.guidance}
        changes = {name: value for name, value in asked.items() if value is not None}
        files = BaseFiles(self.base, self.clip_l, self.clip_g, self.t5xxl, self.tokenizers)
        with base_folder(files) as folder:
            model = find_base_model(
                checkpoint, folder, embeddings=self.prompts, texts=texts if texts.all else None
            )
            yield replace(model, sampling=model.sampling.model_copy(update=changes))


@dataclass(frozen=True)
class UnfinishedOptions:
    """What to do with an unfinished build of the same output."""

    panel: ClassVar[str] = "Unfinished builds"

    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an unfinished build of this output, as the same command does anyway;"
            " says so if there is none.",
        ),
    ] = False
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away an unfinished build of this output.")
    ] = False

    def check(self) -> None:
        """Make sure that they do not contradict one another.

        Raises:
            UsageError: they do.
        """
        if self.resume and self.restart:
            raise UsageError("--resume goes on and --restart starts anew", hint="give one of them")

    def work(self, output: Path, report: Callable[[str], None]) -> "WorkFolder":
        """The work folder of ``output``, treated as the options say."""
        from planner.build.work_folder import WorkFolder, work_folder

        return WorkFolder(
            work_folder(output), resume=self.resume, restart=self.restart, report=report
        )


@dataclass(frozen=True)
class PassOptions:
    """How a calibration pass runs."""

    panel: ClassVar[str] = "Calibration"

    calib_images: Annotated[int, typer.Option(help="Use at most this many images.")] = 32
    calib_crop: Annotated[
        int | None,
        typer.Option(help="Side of the crops in px (default: one tile's, 128 for DiT4SR)."),
    ] = None
    calib_seed: Annotated[int, typer.Option(help="Seed of images, crops and noise.")] = 0
    device: Annotated[
        str,
        typer.Option(
            help="Where the calibration runs: auto, cpu, cuda or mps. A build without images"
            " quantizes on a GPU, too, when cuda is asked for."
        ),
    ] = "auto"

    def quantizing_device(self) -> "torch.device | None":
        """What quantizes: a GPU that was asked for by name, else None for the CPU.

        So the same command gives the same bytes with a GPU in the machine and without.

        Raises:
            UsageError: there is no such device here.
        """
        if self.device in ("auto", "cpu"):
            return None
        from planner.calibrate.device import choose_device

        return choose_device(self.device)[0]

    def probe(self, photos: Path | None) -> "ProbeSettings":
        """How to probe, with ``photos`` or generated pictures.

        Raises:
            UsageError: a value is out of range.
        """
        from planner.probe.run import PICTURES, ProbeSettings, usual_cotangents

        drawn = self.drawn()
        return ProbeSettings(
            photos,
            drawn.images if photos else min(PICTURES, drawn.images),
            usual_cotangents(photos),
            crop_px=drawn.crop_px,
            seed=drawn.seed,
        )

    def default_recipe(
        self, architecture: "Architecture", model: "BaseModel", photos: Path | None
    ) -> "RecipeChoice":
        """The recipe of a build that asks for none.

        Raises:
            UsageError: a value is out of range, or there is no such device here.
            CheckpointError: the autoencoder's configuration is damaged.
        """
        from planner.recipe_choice import recipe_without_base

        if not model.can_run:
            return recipe_without_base(reads_picture=model.reads_picture)
        from planner.calibrate.device import choose_device
        from planner.probe.default_recipe import default_recipe

        device, _ = choose_device(self.device)
        return default_recipe(architecture, model, self.probe(photos), device)

    def run(
        self, folder: Path, unfinished: UnfinishedOptions, report: Callable[[str], None]
    ) -> "CalibrationRun":
        """The pass over the images in ``folder``.

        Raises:
            UsageError: a value is out of range, or there is no such device here.
        """
        from planner.build.calibrated_build import CalibrationRun
        from planner.calibrate.device import choose_device

        device, dtype = choose_device(self.device)
        return CalibrationRun(
            folder,
            self.drawn(),
            device=device,
            dtype=dtype,
            resume=unfinished.resume,
            restart=unfinished.restart,
            report=report,
        )

    def drawn(self) -> "CalibrationSettings":
        """How images are drawn.

        Raises:
            UsageError: a value is out of range.
        """
        from planner.calibrate.settings import CalibrationSettings

        return CalibrationSettings(
            images=self.calib_images, crop_px=self.calib_crop, seed=self.calib_seed
        )
