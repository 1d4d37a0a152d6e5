"""From the options of a command to a loaded model and the settings it is sampled with.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import typer

from artifacts.cli.base_options import Base, ClipG, ClipL, T5xxl, Tokenizers
from runtime.cli.options import (
    ActivationBits,
    Backend,
    ColorFix,
    Device,
    Dtype,
    Fidelity,
    FullPrecision,
    Guidance,
    MaxPixels,
    Memory,
    Overlap,
    Seed,
    Source,
    Steps,
    Tile,
    Variant,
)
from runtime.device_names import check_names
from runtime.images.batch import DEFAULT_MAX_PIXELS
from schemas.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runtime.base.files import BaseFiles
    from runtime.pipeline import Pipeline
    from runtime.prompts.texts import PromptTexts
    from runtime.remote.place import Place
    from runtime.sampling.settings import SamplingOptions


@dataclass(frozen=True)
class NetworkOptions:
    """Options of every command that samples: which network beside packs, how, and where."""

    full_precision: FullPrecision = None
    checkpoint: Source = None
    variant: Variant = None
    steps: Steps = None
    guidance: Guidance = None
    fidelity: Fidelity = None
    seed: Seed = 0
    tile: Tile = None
    overlap: Overlap = None
    color_fix: ColorFix = None
    activation_bits: ActivationBits = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    backend: Backend = "auto"
    memory: Memory = "auto"
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS

    @property
    def sampling(self) -> "SamplingOptions":
        """Those that say how to sample."""
        from runtime.sampling.settings import SamplingOptions

        return SamplingOptions(
            self.steps,
            self.guidance,
            self.tile,
            self.overlap,
            self.color_fix,
            self.seed,
            self.fidelity,
        )

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: an option has a value that it cannot have.
        """
        from runtime.sampling.settings import check_activation_bits

        check_names(self.device, self.dtype, self.backend, self.memory)
        self.sampling.check()
        if self.activation_bits is not None:
            check_activation_bits(self.activation_bits)
        if self.variant is not None and self.full_precision is None:
            raise UsageError("--variant goes with --full-precision: a pack knows its own")


@dataclass(frozen=True)
class BaseOptions:
    """What goes beside a transformer that comes alone."""

    panel: ClassVar[str] = "Base model"

    base: Base = None
    clip_l: ClipL = None
    clip_g: ClipG = None
    t5xxl: T5xxl = None
    tokenizers: Tokenizers = None

    @property
    def files(self) -> "BaseFiles":
        """As `runtime.loader.load_pipeline` takes them."""
        from runtime.base.files import BaseFiles

        return BaseFiles(self.base, self.clip_l, self.clip_g, self.t5xxl, self.tokenizers)


@dataclass(frozen=True)
class PromptOptions:
    """What guidance steers towards and away from, where that is not the pack's choice."""

    panel: ClassVar[str] = "Prompts (default: the pack's)"

    prompt: Annotated[
        str | None, typer.Option(help="Positive prompt; needs --base with its text encoders.")
    ] = None
    negative_prompt: Annotated[str | None, typer.Option(help="Negative prompt.")] = None
    prompt_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Captions: NAME.txt is the positive prompt of the image NAME; images without one"
            " get --prompt.",
        ),
    ] = None

    def captions(self, images: "Iterable[Place]") -> "dict[Place, str]":
        """The caption of every image that has one.

        Raises:
            UsageError: the folder has none for any of them, or a file cannot be read.
        """
        from runtime.prompts.captions import read_captions

        return {} if self.prompt_dir is None else read_captions(self.prompt_dir, images)

    def texts(self, captions: "Iterable[str]") -> "PromptTexts":
        """As `runtime.loader.load_pipeline` takes them."""
        from runtime.prompts.texts import PromptTexts

        return PromptTexts(self.prompt, self.negative_prompt, frozenset(captions))


class ModelCheck(Protocol):
    """`check_model`, or what stands in for it."""

    def __call__(
        self,
        *,
        packs: "Sequence[Path]",
        full_precision: Path | None,
        base: BaseOptions,
        texts: "PromptTexts | None" = None,
    ) -> None:
        """Check where a model is said to be."""


def local_pack(pack: Path) -> Path:
    """`artifacts.hub.fetch.local_pack`, which is imported where a pack on the hub is named."""
    from artifacts.hub.names import hub_name

    if hub_name(pack) is None:
        return pack
    from artifacts.hub import fetch

    return fetch.local_pack(pack)


def check_model(
    *,
    packs: "Sequence[Path]",
    full_precision: Path | None,
    base: BaseOptions,
    texts: "PromptTexts | None" = None,
) -> None:
    """Look whether there is a model at the paths that a command names, before anything is loaded.

    Raises:
        UsageError: there are ``texts``, and nowhere anything that could encode them: a pack holds
            no text encoders, and only folders have prompts by name.
        PackError: a pack's path is none; says what it is instead.
        CheckpointError: there is nothing at another path.
    """
    from artifacts.pack.place import check_is_pack
    from runtime.base.files import BaseFiles
    from runtime.prompts.texts import no_encoders
    from schemas.places import absent

    for pack in packs:
        check_is_pack(pack)
    others = (full_precision, base.base, base.clip_l, base.clip_g, base.t5xxl, base.tokenizers)
    for path in others:
        if path is not None and not path.exists():
            message, hint = absent(path, "file or folder")
            raise CheckpointError(message, hint=hint)
    nowhere = full_precision is None and base.files == BaseFiles()
    if nowhere and texts is not None and texts.all:
        raise no_encoders()


def load_pipeline(**options: Any) -> "Pipeline":
    """`runtime.loader.load_pipeline`, which is imported when it is called."""
    from runtime import loader

    return loader.load_pipeline(**options)
