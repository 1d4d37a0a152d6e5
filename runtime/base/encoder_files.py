"""Text encoders as single files, as ComfyUI has them: tensors alone, under transformers' names.

What a configuration would say is read off the shapes; the rest is the same in every CLIP and T5 of
Stable Diffusion 3: heads of 64 channels in CLIP, its end-of-text token the last of the vocabulary,
``quick_gelu`` in CLIP-L and ``gelu`` in CLIP-G.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.files.safetensors_io import Header, TensorSpec, read_header
from runtime.base.linking import link
from schemas.errors import CheckpointError

_CLIP_HEAD_CHANNELS = 64
_CLIP_ACTIVATIONS = {"text_encoder": "quick_gelu", "text_encoder_2": "gelu"}
_CLIP_LAYER = "text_model.encoder.layers."
_T5_BLOCK = "encoder.block."
_T5_ATTENTION = "encoder.block.0.layer.0.SelfAttention."
_T5_FEED_FORWARD = "encoder.block.0.layer.1.DenseReluDense."
_SCALED = ("scaled_fp8", "scale_weight", "weight_scale")
"""Last parts of tensor names where 8-bit weights are to be multiplied by scales."""


def add_encoder(folder: Path, file: Path) -> None:
    """Make a transformers folder of one encoder's file.

    Args:
        folder: ``text_encoder``, ``text_encoder_2`` or ``text_encoder_3``; made here.
        file: the encoder, ``.safetensors``.

    Raises:
        CheckpointError: the file is damaged, is another model's, or holds scaled 8-bit weights.
        OSError: ``folder`` cannot be written.
    """
    header = read_header(file, error=CheckpointError)
    if any(name.rpartition(".")[2] in _SCALED for name in header.tensors):
        raise CheckpointError(
            f"{file}: holds scaled 8-bit weights", hint="use the 16-bit file of this encoder"
        )
    try:
        config = (
            _clip_config(header.tensors, _CLIP_ACTIVATIONS[folder.name])
            if folder.name in _CLIP_ACTIVATIONS
            else _t5_config(header.tensors)
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as cause:
        raise CheckpointError(
            f"{file}: not the encoder that belongs here", hint=_expected(folder, header)
        ) from cause
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    link(file, folder / "model.safetensors")


def _expected(folder: Path, header: Header) -> str:
    kind = "CLIP text" if folder.name in _CLIP_ACTIVATIONS else "T5"
    found = ", ".join(sorted(header.tensors)[:2])
    return f"a {kind} encoder in transformers' names is needed; this file holds {found}, ..."


def _clip_config(tensors: Mapping[str, TensorSpec], activation: str) -> dict[str, Any]:
    vocabulary, width = tensors["text_model.embeddings.token_embedding.weight"].shape
    heads, rest = divmod(width, _CLIP_HEAD_CHANNELS)
    if rest or not heads:
        raise ValueError("not CLIP's heads")
    return {
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": tensors["text_projection.weight"].shape[0],
        "intermediate_size": tensors[f"{_CLIP_LAYER}0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _count(tensors, _CLIP_LAYER),
        "num_attention_heads": heads,
        "max_position_embeddings": tensors["text_model.embeddings.position_embedding.weight"].shape[
            0
        ],
        "hidden_act": activation,
        # As the published configurations have it: the pooled token is the one of the largest
        # number, which is the end of the text in every CLIP vocabulary.
        "eos_token_id": 2,
    }


def _t5_config(tensors: Mapping[str, TensorSpec]) -> dict[str, Any]:
    vocabulary, width = tensors["shared.weight"].shape
    buckets, heads = tensors[f"{_T5_ATTENTION}relative_attention_bias.weight"].shape
    inner, rest = divmod(tensors[f"{_T5_ATTENTION}q.weight"].shape[0], heads)
    if rest:
        raise ValueError("not T5's heads")
    gated = f"{_T5_FEED_FORWARD}wi_0.weight" in tensors
    first = tensors[f"{_T5_FEED_FORWARD}{'wi_0' if gated else 'wi'}.weight"]
    return {
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner,
        "d_ff": first.shape[0],
        "num_layers": _count(tensors, _T5_BLOCK),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def _count(tensors: Mapping[str, TensorSpec], prefix: str) -> int:
    """How many different numbers follow ``prefix``."""
    found = {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    return len(found)
