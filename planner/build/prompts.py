"""Default prompts, and their encoding by Stable Diffusion 3's three text encoders.

An upscale always uses the same two prompts, so they are encoded once, when a pack is built, and no
text encoder is needed afterwards. The encoders are loaded one after the other: the largest (T5-XXL,
9.5 GB in bfloat16) is alone in memory.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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

DEFAULT_POSITIVE = (
    "A crisp, faithful photograph with natural colours, fine texture in every surface, clean"
    " edges and true-to-life detail, taken with a good lens and well exposed."
)
DEFAULT_NEGATIVE = (
    "blurry, out of focus, noisy, jpeg blocks, ringing around edges, smeared texture, plastic"
    " skin, oversharpened, washed-out colours, low resolution"
)


@dataclass(frozen=True)
class PromptTexts:
    """What guidance steers towards, and away from."""

    positive: str = DEFAULT_POSITIVE
    negative: str = DEFAULT_NEGATIVE


def has_text_encoders(folder: Path) -> bool:
    """Whether all three encoders and their tokenizers are in ``folder``."""
    return all((folder / name).is_dir() for name in ENCODER_FOLDERS)


@torch.inference_mode()
def encode_prompts(folder: Path, texts: PromptTexts) -> dict[str, Tensor]:
    """Encode both prompts the way Stable Diffusion 3 does.

    Two CLIP encoders give the hidden states before their last layer, side by side and padded with
    zeros to T5's width, and their pooled outputs side by side; T5's tokens follow CLIP's.

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
    try:
        import transformers  # noqa: PLC0415  (an extra, and seconds to import)
    except ImportError as cause:
        raise UsageError(
            "encoding prompts needs the package transformers", hint=PIP_HINT
        ) from cause
    both = [texts.positive, texts.negative]

    clip = transformers.CLIPTextModelWithProjection, transformers.CLIPTokenizerFast
    hidden, pooled = [], []
    for number in ("", "_2"):
        output = _run_encoder(folder, number, *clip, _clip_output, both, CLIP_TOKENS)
        hidden.append(output[0])
        pooled.append(output[1])
    t5 = transformers.T5EncoderModel, transformers.T5TokenizerFast
    (t5_hidden,) = _run_encoder(folder, "_3", *t5, _t5_output, both, T5_TOKENS)

    joined = torch.cat(hidden, dim=-1)  # [2, 77, CLIP widths]
    spare = t5_hidden.shape[-1] - joined.shape[-1]
    if spare < 0:
        raise CheckpointError(
            f"{folder}: the CLIP encoders are {joined.shape[-1]} wide together, T5 only"
            f" {t5_hidden.shape[-1]}"
        )
    embeds = torch.cat([F.pad(joined, (0, spare)), t5_hidden], dim=1).bfloat16()
    pool = torch.cat(pooled, dim=-1).bfloat16()
    return {
        f"{side}.{part}": tensor[index].clone()
        for index, side in enumerate(("positive", "negative"))
        for part, tensor in (("embeds", embeds), ("pooled", pool))
    }


def _clip_output(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    output = model(ids, output_hidden_states=True)
    return output.hidden_states[-2].float(), output.text_embeds.float()


def _t5_output(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    return (model(ids).last_hidden_state.float(),)


def _run_encoder(
    folder: Path,
    number: str,
    model_class: Any,
    tokenizer_class: Any,
    output_of: Callable[[Any, Tensor], tuple[Tensor, ...]],
    texts: list[str],
    tokens: int,
) -> tuple[Tensor, ...]:
    """Load one encoder, run it on ``texts`` padded or cut to ``tokens``, and let it go again."""
    if not any((folder / f"tokenizer{number}" / name).is_file() for name in VOCABULARY_FILES):
        # transformers would go on without one, and read every word as unknown.
        raise CheckpointError(f"{folder}: tokenizer{number} has no vocabulary")
    try:
        # Nothing may be fetched: what is not in the folder is an error.
        tokenizer = tokenizer_class.from_pretrained(
            folder / f"tokenizer{number}", local_files_only=True
        )
        model = model_class.from_pretrained(
            folder / f"text_encoder{number}",
            dtype=torch.bfloat16,
            use_safetensors=True,
            local_files_only=True,
        )
    except ImportError as cause:
        raise UsageError(
            f"{folder}: tokenizer{number} needs another package: {_first_line(cause)}",
            hint=PIP_HINT,
        ) from cause
    except MemoryError:
        raise
    except Exception as cause:  # a damaged file raises whatever the parser at hand raises
        raise CheckpointError(
            f"{folder}: text_encoder{number} cannot be loaded: {_first_line(cause)}"
        ) from cause
    ids = tokenizer(
        texts, padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
    ).input_ids
    if int(ids.max()) >= model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: tokenizer{number} does not belong to text_encoder{number}: it knows more"
            f" words than {model.config.vocab_size}"
        )
    output = output_of(model.eval(), ids)
    del model
    gc.collect()  # before the next encoder is loaded
    return output


def _first_line(cause: BaseException) -> str:
    """The start of a message that may run over a page."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0][:200]
