"""What a pack needs beside the transformer: autoencoder, scheduler, prompts, sampling defaults.

They come from a Stable Diffusion 3.5 medium folder (``--base``), or from the checkpoint's own
folder when that is a whole pipeline. Without either, the pack holds the transformer alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from artifacts.checkpoint import Checkpoint
from artifacts.pack_files import PROMPTS, SCHEDULER_FILES, VAE_FILES
from artifacts.pack_layout import prompt_tensors
from artifacts.pack_writer import PackWriter
from artifacts.safetensors_io import read_header
from artifacts.sampling_defaults import DIT4SR_SAMPLING, read_sampling_defaults
from planner.prompts import PromptTexts, encode_prompts, has_text_encoders
from schemas.errors import CheckpointError, UsageError
from schemas.manifest import SamplingDefaults


@dataclass(frozen=True)
class BaseModel:
    """Parts of a pipeline, found and checked but not yet read.

    Attributes:
        folder: where autoencoder and scheduler are; None for a pack of the transformer alone.
        prompts: prompt embeddings under a pack's names, or None.
        sampling: how the model is sampled unless told otherwise.
        warnings: what the user should know, one line each.
    """

    folder: Path | None = None
    prompts: Mapping[str, Tensor] | None = None
    sampling: SamplingDefaults = DIT4SR_SAMPLING
    warnings: list[str] = field(default_factory=list)

    def add_to(self, writer: PackWriter) -> None:
        """Put all parts into a pack."""
        if self.folder is not None:
            for name in (*VAE_FILES, *SCHEDULER_FILES):
                writer.add_file(name, self.folder / name)
        if self.prompts is not None:
            writer.add_prompts(self.prompts)


def find_base_model(
    checkpoint: Checkpoint,
    base: Path | None,
    *,
    embeddings: Path | None = None,
    texts: PromptTexts | None = None,
) -> BaseModel:
    """Find the parts that go beside the transformer.

    Prompts come from, in this order: ``embeddings``; the folder's text encoders, when ``texts``
    were given or there are no ready embeddings; ``prompts.safetensors`` in the folder.

    Args:
        checkpoint: the transformer; its own folder is searched when ``base`` is None.
        base: a pipeline folder, or None.
        embeddings: a file with prompt embeddings.
        texts: prompts to encode instead of the defaults.

    Raises:
        UsageError: prompts were given that nothing can encode.
        CheckpointError: the base is incomplete, or embeddings do not fit the transformer.
    """
    folder = base or checkpoint.parts_dir
    if base is not None and not base.is_dir():
        raise CheckpointError(f"{base}: no such folder")
    if folder is not None:
        missing = [name for name in (*VAE_FILES, *SCHEDULER_FILES) if not (folder / name).is_file()]
        if missing and base is not None:
            raise CheckpointError(
                f"{base}: not a Stable Diffusion 3.5 folder: {', '.join(missing)} missing",
                hint="name the folder that holds vae/ and scheduler/",
            )
        folder = None if missing else folder

    model = BaseModel(folder, sampling=read_sampling_defaults(folder))
    if embeddings is not None:
        return replace(model, prompts=read_embeddings(embeddings, checkpoint))
    stored = None if folder is None else folder / PROMPTS
    if stored is not None and stored.is_file() and texts is None:
        return replace(model, prompts=read_embeddings(stored, checkpoint))
    if folder is not None and has_text_encoders(folder):
        prompts = encode_prompts(folder, texts or PromptTexts())
        check_embeddings(prompts, checkpoint, str(folder))
        return replace(model, prompts=prompts)
    if texts is not None:
        raise UsageError(
            "a prompt was given, but there are no text encoders to encode it",
            hint="name a Stable Diffusion 3.5 folder with --base, or a file with --prompts",
        )
    without = "VAE, scheduler and prompts" if folder is None else "prompts"
    return replace(
        model, warnings=[f"the pack will hold no {without}; upscaling will ask for --base"]
    )


def read_embeddings(file: Path, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read a safetensors file of prompt embeddings.

    Raises:
        CheckpointError: it is damaged, or its names or shapes are not those a pack has.
    """
    header = read_header(file, error=CheckpointError)
    tensors = {name: header.read(name, error=CheckpointError) for name in header.tensors}
    check_embeddings(tensors, checkpoint, str(file))
    return tensors


def check_embeddings(tensors: Mapping[str, Tensor], checkpoint: Checkpoint, where: str) -> None:
    """Make sure that prompt embeddings fit the transformer.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    embeds = tensors.get("positive.embeds")
    tokens = embeds.shape[0] if embeds is not None and embeds.dim() == 2 else 1
    expected = prompt_tensors(checkpoint.config, tokens)
    if set(tensors) != set(expected):
        raise CheckpointError(
            f"{where}: prompt embeddings must be {', '.join(sorted(expected))}, found"
            f" {', '.join(sorted(tensors)) or 'none'}"
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape or not tensors[name].is_floating_point():
            raise CheckpointError(
                f"{where}: {name} is {tensors[name].dtype} {list(tensors[name].shape)}, but the"
                f" transformer reads floats {list(shape)}"
            )
