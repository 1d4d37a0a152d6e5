"""What a pack needs beside the transformer: autoencoder, scheduler, prompts, sampling defaults.

They come from the base model's folder (``--base``), or from the checkpoint's own
folder when that is a whole pipeline. Without either, the pack holds the transformer alone.
Everything is found and checked before the first layer is quantized, which may take an hour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from artifacts.autoencoder.files import open_autoencoder
from artifacts.checkpoint.reader import Checkpoint
from artifacts.checkpoint.sampling_defaults import SAMPLING_FILE, read_sampling_defaults
from artifacts.family import IMAGE_ENCODER_FOLDER, Architecture
from artifacts.files.safetensors_io import read_header
from artifacts.pack.file_names import COMPANION_FILES, PROMPTS, SCHEDULER_FILES, VAE_FOLDER
from artifacts.pack.writer import PackWriter
from runtime.prompts.encoders import has_text_encoders
from runtime.prompts.find import encode_prompts, replace_sides
from runtime.prompts.named import find_by_name
from runtime.prompts.texts import PromptTexts
from schemas.errors import CheckpointError, UsageError
from schemas.json_io import read_json_file
from schemas.manifest import SamplingDefaults
from schemas.places import absent

PROMPT_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
SHOWN_NAMES = 4


@dataclass(frozen=True)
class BaseModel:
    """Parts of a pipeline, found and checked; the autoencoder is not yet read.

    Attributes:
        sampling: how the model is sampled unless told otherwise.
        folder: where autoencoder and scheduler are; None for a pack of the transformer alone.
        prompts: prompt embeddings under a pack's names, or None.
        warnings: what the user should know, one line each.
        reads_picture: whether the network reads features of the picture instead of prompts.
    """

    sampling: SamplingDefaults
    folder: Path | None = None
    prompts: Mapping[str, Tensor] | None = None
    warnings: list[str] = field(default_factory=list)
    reads_picture: bool = False

    @property
    def can_run(self) -> bool:
        """Whether there is all that running the network on pictures takes."""
        if self.folder is None:
            return False
        if self.reads_picture:
            return (self.folder / IMAGE_ENCODER_FOLDER).is_dir()
        return self.prompts is not None

    def condition_tokens(self, architecture: Architecture) -> int:
        """Length of the prompts, or features of a picture; without prompts as published."""
        if self.prompts is None:
            return architecture.family.text_tokens
        return len(self.prompts["positive.embeds"])

    def add_to(self, writer: PackWriter) -> None:
        """Put all parts into a pack."""
        if self.folder is not None:
            for name in COMPANION_FILES:
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

    Autoencoder and scheduler come from ``base``, else from the checkpoint's own folder. Prompts
    come from ``embeddings``, else from the first of those folders that has any: ready embeddings
    when no ``texts`` are given, else text encoders. Sampling defaults belong to the transformer,
    so the checkpoint's folder goes first.

    Args:
        checkpoint: the transformer.
        base: a pipeline folder, or None.
        embeddings: a file with prompt embeddings.
        texts: prompts to encode instead of the defaults.

    Raises:
        UsageError: prompts were given twice, as text that nothing can encode, or to a network that
            reads none.
        CheckpointError: the base is incomplete or damaged, or embeddings do not fit the
            transformer.
    """
    if embeddings is not None and texts is not None:
        raise UsageError("prompts were given both as text and as embeddings", hint="give one")
    family = checkpoint.family
    if family.reads_picture and (embeddings is not None or texts is not None):
        raise UsageError(f"{family.title} reads no prompts", hint="leave them out")
    if base is not None:
        _require_companions(base, family.base_title)
    folders = [folder for folder in (base, checkpoint.parts_dir) if folder is not None]
    companions = next((folder for folder in folders if not _missing_companions(folder)), None)
    if companions is not None:
        _check_companions(companions, checkpoint)
    prompts, condition = None, "prompts"
    if family.reads_picture:
        condition = "image encoder"  # the format has no place for one
    else:
        prompts = _find_prompts(checkpoint, folders, embeddings, texts)
    lacks = "VAE and scheduler" if companions is None else ""
    if prompts is None:
        lacks = f"VAE, scheduler and {condition}" if lacks else condition
    return BaseModel(
        _find_sampling(folders, checkpoint.architecture()),
        companions,
        prompts,
        [f"the pack will hold no {lacks}; upscaling will ask for --base"] if lacks else [],
        reads_picture=family.reads_picture,
    )


def _missing_companions(folder: Path) -> list[str]:
    return [name for name in COMPANION_FILES if not (folder / name).is_file()]


def _require_companions(base: Path, title: str) -> None:
    if not base.is_dir():
        message, hint = absent(base, "folder")
        raise CheckpointError(message, hint=hint)
    missing = _missing_companions(base)
    if missing:
        raise CheckpointError(
            f"{base}: not a {title} folder: {', '.join(missing)} missing",
            hint="name the folder that holds vae/ and scheduler/",
        )


def _check_companions(folder: Path, checkpoint: Checkpoint) -> None:
    """Find damage now: the pack's writer would find it too, but only after all the work."""
    for file in (folder / name for name in SCHEDULER_FILES):
        content = read_json_file(file, where=str(file), error=CheckpointError)
        if not isinstance(content, dict):
            raise CheckpointError(f"{file}: not a JSON object")
    open_autoencoder(
        folder / VAE_FOLDER,
        error=CheckpointError,
        latent_channels=checkpoint.architecture().latent_size.channels,
    ).check_values()


def _find_sampling(folders: Sequence[Path], architecture: Architecture) -> SamplingDefaults:
    own = [folder for folder in reversed(folders) if (folder / SAMPLING_FILE).exists()]
    return read_sampling_defaults(own[0] if own else None, architecture)


def _find_prompts(
    checkpoint: Checkpoint,
    folders: Sequence[Path],
    embeddings: Path | None,
    texts: PromptTexts | None,
) -> dict[str, Tensor] | None:
    if embeddings is not None:
        return read_embeddings(embeddings, checkpoint)
    for folder in folders:
        if texts is None and (folder / PROMPTS).is_file():
            return read_embeddings(folder / PROMPTS, checkpoint)
        if has_text_encoders(folder):
            prompts = encode_prompts(folder, texts or PromptTexts())
            check_embeddings(prompts, checkpoint, str(folder))
            return prompts
    if texts is not None:
        by_name = find_by_name(folders, texts.all)
        ready = next((f / PROMPTS for f in folders if (f / PROMPTS).is_file()), None)
        if by_name and ready is not None:
            prompts = replace_sides(read_embeddings(ready, checkpoint), texts, by_name)
            check_embeddings(prompts, checkpoint, str(ready.parent))
            return prompts
        raise UsageError(
            "a prompt was given, but there are no text encoders to encode it",
            hint="name a Stable Diffusion 3.5 folder with --base, or a file with --prompts",
        )
    return None


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
    expected = checkpoint.architecture().prompt_shapes(max(tokens, 1))
    if set(tensors) != set(expected):
        raise CheckpointError(
            f"{where}: prompt embeddings must be {', '.join(sorted(expected))}, found"
            f" {', '.join(name[:200] for name in sorted(tensors)[:SHOWN_NAMES]) or 'none'}"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype not in PROMPT_DTYPES:
            raise CheckpointError(
                f"{where}: {name} is {tensor.dtype} {list(tensor.shape)}, but the transformer"
                f" reads floats of up to 32 bits {list(shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values")
