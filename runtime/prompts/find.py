"""Which prompts a run has: those of a text, of the pack, or of the base model, in this order."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from artifacts.family import Architecture
from artifacts.files.safetensors_io import read_header
from artifacts.pack.file_names import PROMPTS
from runtime.pipeline import Prompts
from runtime.prompts.embedding_cache import encode_cached
from runtime.prompts.encoders import TextEmbedding, has_text_encoders
from runtime.prompts.named import find_by_name
from runtime.prompts.texts import (
    DEFAULT_NEGATIVE,
    DEFAULT_POSITIVE,
    PromptTexts,
    no_encoders,
)
from schemas.errors import CheckpointError, UsageError


def encode_prompts(folder: Path, texts: PromptTexts) -> dict[str, Tensor]:
    """Encode both prompts; a side without a text gets the default.

    Args:
        folder: a Stable Diffusion 3.5 folder.
        texts: the prompts.

    Returns:
        ``positive.embeds``, ``negative.embeds`` [77 + 256, T5 width] and ``positive.pooled``,
        ``negative.pooled`` [sum of CLIP widths], bfloat16.

    Raises:
        UsageError: transformers, or what its tokenizers need (the extra ``prompts``), is not
            installed.
        CheckpointError: an encoder cannot be loaded.
    """
    positive = DEFAULT_POSITIVE if texts.positive is None else texts.positive
    negative = DEFAULT_NEGATIVE if texts.negative is None else texts.negative
    found = encode_cached(folder, [positive, negative])
    return _side("positive", found[positive]) | _side("negative", found[negative])


def check_texts(folders: Sequence[Path], texts: PromptTexts) -> None:
    """Make sure that something can make embeddings of ``texts``, before anything is loaded.

    Args:
        folders: as `find_prompts` takes them.
        texts: what is to be encoded, or names of prompts that a folder has ready.

    Raises:
        UsageError: there are no text encoders, and no prompt of that name.
        CheckpointError: the file of named prompts is damaged.
    """
    if texts.all and not any(map(has_text_encoders, folders)):
        _by_name(folders, texts)


def _by_name(folders: Sequence[Path], texts: PromptTexts) -> Mapping[str, TextEmbedding]:
    encoded = find_by_name(folders, texts.all)
    if not encoded:
        raise no_encoders()
    return encoded


def find_prompts(
    own: Mapping[str, Tensor] | None,
    folders: Sequence[Path],
    texts: PromptTexts,
    architecture: Architecture,
    *,
    hint: str,
) -> tuple[Prompts, Mapping[str, TextEmbedding]]:
    """The prompts of a run, and the embeddings of its captions.

    Where nothing gives a side's prompt but there are text encoders, it is the default text. Where
    there are none, a text may be the name of a prompt that a folder has ready. A network that reads
    features of the picture has prompts without tokens.

    Args:
        own: embeddings of the pack under a pack's names, or None.
        folders: may hold embeddings or text encoders; the first that has any is taken.
        texts: what replaces them.
        architecture: of the network that reads the prompts.
        hint: where embeddings could come from, when there are none.

    Returns:
        The prompts, and a mapping from every caption to its embedding.

    Raises:
        UsageError: there are no prompts, nothing can encode a text, or the encoders are those of
            another model, or a text is given to a network that reads none.
        CheckpointError: a file of embeddings or an encoder is damaged.
    """
    if architecture.family.reads_picture:
        if texts.all:
            raise UsageError(f"{architecture.family.title} reads no prompts", hint="leave them out")
        nothing = {
            name: torch.zeros(shape) for name, shape in architecture.prompt_shapes(0).items()
        }
        return prompts_from(nothing), {}
    for folder in folders:
        if own is None and (folder / PROMPTS).is_file():
            own = _read_file(folder / PROMPTS, architecture)
    model_prompts = None if own is None else prompts_from(own)
    if model_prompts is not None and not texts.all:
        return model_prompts, {}
    encoders = next((folder for folder in folders if has_text_encoders(folder)), None)
    encoded: Mapping[str, TextEmbedding]
    if encoders is None:
        if not texts.all:
            raise UsageError("there are no prompt embeddings", hint=hint)
        encoded = _by_name(folders, texts)
    else:
        if own is None:
            texts = PromptTexts(
                DEFAULT_POSITIVE if texts.positive is None else texts.positive,
                DEFAULT_NEGATIVE if texts.negative is None else texts.negative,
                texts.captions,
            )
        encoded = encode_cached(encoders, texts.all)
    sides = replace_sides(own or {}, texts, encoded)
    first = encoded[texts.all[0]]
    _check_fit(first, architecture)
    _check_lengths(sides, first)
    return prompts_from(sides), encoded


def replace_sides(
    own: Mapping[str, Tensor], texts: PromptTexts, found: Mapping[str, TextEmbedding]
) -> dict[str, Tensor]:
    """``own`` under a pack's names, with what ``found`` has for the sides of ``texts``."""
    sides = dict(own)
    for side, text in (("positive", texts.positive), ("negative", texts.negative)):
        if text is not None:
            sides |= _side(side, found[text])
    return sides


def prompts_from(tensors: Mapping[str, Tensor]) -> Prompts:
    """Prompts from tensors under a pack's names.

    Raises:
        CheckpointError: a tensor is missing.
        PackError: the two prompts differ in shape.
    """
    try:
        return Prompts(
            tensors["positive.embeds"],
            tensors["positive.pooled"],
            tensors["negative.embeds"],
            tensors["negative.pooled"],
        )
    except KeyError as cause:
        raise CheckpointError(f"prompt embeddings lack {cause}") from None


def _read_file(file: Path, architecture: Architecture) -> dict[str, Tensor]:
    """Embeddings under a pack's names, from a file that is not part of a pack."""
    header = read_header(file, error=CheckpointError)
    embeds = header.tensors.get("positive.embeds")
    tokens = embeds.shape[0] if embeds is not None and embeds.shape else 0
    expected = architecture.prompt_shapes(tokens)
    found = {name: spec.shape for name, spec in header.tensors.items()}
    if not tokens or found != expected:
        raise CheckpointError(f"{file}: its prompt embeddings are not those of this network")
    tensors = {name: header.read(name, error=CheckpointError) for name in expected}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{file}: {name} holds something else than finite numbers")
    return tensors


def _side(side: str, embedding: TextEmbedding) -> dict[str, Tensor]:
    """One prompt under a pack's names."""
    return {f"{side}.embeds": embedding.embeds, f"{side}.pooled": embedding.pooled}


def _check_fit(embedding: TextEmbedding, architecture: Architecture) -> None:
    """Make sure that the network reads what the encoders, or the named prompts, give."""
    expected = architecture.prompt_shapes(embedding.embeds.shape[0])
    for part, tensor in (("embeds", embedding.embeds), ("pooled", embedding.pooled)):
        shape = expected[f"positive.{part}"]
        if tuple(tensor.shape) != shape:
            raise UsageError(
                f"the prompts have {part} {list(tensor.shape)}, but the network reads"
                f" {list(shape)}",
                hint="--base must be the model that the network was trained with",
            )


def _check_lengths(sides: Mapping[str, Tensor], encoded: TextEmbedding) -> None:
    """Make sure that a prompt that comes with the model is as long as the encoded ones."""
    length = encoded.embeds.shape[0]
    options = {"positive": "--prompt", "negative": "--negative-prompt"}
    others = [side for side in options if sides[f"{side}.embeds"].shape[0] != length]
    if others:
        raise UsageError(
            f"the model's own {' and '.join(others)} prompt has"
            f" {sides[f'{others[0]}.embeds'].shape[0]} tokens, encoded ones have {length}",
            hint=f"give {' and '.join(options[side] for side in others)} too",
        )
