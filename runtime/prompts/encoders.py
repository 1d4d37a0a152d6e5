"""Stable Diffusion 3's three text encoders.

They are loaded one after the other, each run on all texts and let go again: the largest (T5-XXL,
9.5 GB in bfloat16) is alone in memory.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.pretrained import check_regular_files, first_line, load_pretrained
from schemas.errors import CheckpointError, UsageError

ENCODER_FOLDERS = (
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "tokenizer",
    "tokenizer_2",
    "tokenizer_3",
)
CLIP_TOKENS = 77
T5_TOKENS = 256
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
PIP_HINT = "pip install 'qdit4sr[prompts]'"


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """What the network is given of one text.

    Attributes:
        embeds: tokens of CLIP, then of T5, bfloat16 [77 + 256, T5 width].
        pooled: pooled outputs of both CLIP encoders, bfloat16 [sum of their widths].
    """

    embeds: Tensor
    pooled: Tensor


def has_text_encoders(folder: Path) -> bool:
    """Whether all three encoders and their tokenizers are in ``folder``."""
    return all((folder / name).is_dir() for name in ENCODER_FOLDERS)


@torch.inference_mode()
def encode_texts(folder: Path, texts: Sequence[str]) -> list[TextEmbedding]:
    """Encode texts the way Stable Diffusion 3 does.

    Two CLIP encoders give the hidden states before their last layer, side by side and padded with
    zeros to T5's width, and their pooled outputs side by side; T5's tokens follow CLIP's. Each text
    is encoded by itself, so that its embedding does not depend on the others.

    Args:
        folder: a Stable Diffusion 3.5 folder.
        texts: the prompts. What exceeds the encoders' tokens is cut off.

    Returns:
        One embedding for each text.

    Raises:
        UsageError: transformers, or what its tokenizers need (the extra ``prompts``), is not
            installed.
        CheckpointError: an encoder cannot be loaded.
    """
    try:
        import transformers  # noqa: PLC0415  (an extra, and seconds to import)
    except ImportError as cause:
        raise UsageError(
            "encoding prompts needs the package transformers", hint=PIP_HINT
        ) from cause
    transformers.utils.logging.disable_progress_bar()

    clip = transformers.CLIPTextModelWithProjection, transformers.CLIPTokenizerFast
    outputs = [
        _run_encoder(folder, number, *clip, _clip_output, texts, CLIP_TOKENS)
        for number in ("", "_2")
    ]
    t5 = transformers.T5EncoderModel, transformers.T5TokenizerFast
    t5_outputs = _run_encoder(folder, "_3", *t5, _t5_output, texts, T5_TOKENS)

    found = []
    for first, second, (t5_hidden,) in zip(*outputs, t5_outputs, strict=True):
        joined = torch.cat([first[0], second[0]], dim=-1)  # [77, CLIP widths]
        spare = t5_hidden.shape[-1] - joined.shape[-1]
        if spare < 0:
            raise CheckpointError(
                f"{folder}: the CLIP encoders are {joined.shape[-1]} wide together, T5 only"
                f" {t5_hidden.shape[-1]}"
            )
        embeds = torch.cat([F.pad(joined, (0, spare)), t5_hidden])
        pooled = torch.cat([first[1], second[1]])
        found.append(TextEmbedding(embeds, pooled))
    return found


def _clip_output(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    output = model(ids, output_hidden_states=True)
    return output.hidden_states[-2][0].bfloat16(), output.text_embeds[0].bfloat16()


def _t5_output(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    return (model(ids).last_hidden_state[0].bfloat16(),)


def _run_encoder(
    folder: Path,
    number: str,
    model_class: Any,
    tokenizer_class: Any,
    output_of: Callable[[Any, Tensor], tuple[Tensor, ...]],
    texts: Sequence[str],
    tokens: int,
) -> list[tuple[Tensor, ...]]:
    """Load one encoder, run it on ``texts`` padded or cut to ``tokens``, and let it go again."""
    if not any((folder / f"tokenizer{number}" / name).is_file() for name in VOCABULARY_FILES):
        # transformers would go on without one, and read every word as unknown.
        raise CheckpointError(f"{folder}: tokenizer{number} has no vocabulary")
    check_regular_files(folder / f"tokenizer{number}")
    try:
        tokenizer = tokenizer_class.from_pretrained(
            folder / f"tokenizer{number}", local_files_only=True
        )
        model = load_pretrained(model_class, folder, f"text_encoder{number}", torch.bfloat16)
    except ImportError as cause:
        raise UsageError(
            f"{folder}: tokenizer{number} needs another package: {first_line(cause)}",
            hint=PIP_HINT,
        ) from cause
    except (CheckpointError, MemoryError):
        raise
    except Exception as cause:  # a damaged file raises whatever the parser at hand raises
        raise CheckpointError(
            f"{folder}: text_encoder{number} cannot be loaded: {first_line(cause)}"
        ) from cause
    ids = tokenizer(
        list(texts), padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    ).input_ids
    if int(ids.max()) >= model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: tokenizer{number} does not belong to text_encoder{number}: it knows more"
            f" words than {model.config.vocab_size}"
        )
    outputs = [output_of(model, row) for row in ids.split(1)]
    del model
    gc.collect()  # before the next encoder is loaded
    return outputs
