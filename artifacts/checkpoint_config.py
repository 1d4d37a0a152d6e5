"""The configuration of a bare checkpoint, recovered from the names and shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from artifacts.layout import POSITION_TABLE, Shape
from artifacts.safetensors_io import Header
from schemas.errors import CheckpointError
from schemas.json_io import validate
from schemas.transformer_config import TransformerConfig

_BLOCK = re.compile(r"transformer_blocks\.(\d{1,4})\.")
_NEEDED = (
    "pos_embed.proj.weight",
    "context_embedder.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "transformer_blocks.0.attn.norm_q.weight",
    "transformer_blocks.0.attn.to_q_control.weight",
    "proj_out.weight",
)


def config_from_shapes(
    path: Path, shapes: Mapping[str, Shape], headers: tuple[Header, ...]
) -> TransformerConfig:
    """Recover the configuration.

    The training size (``sample_size``) leaves its trace only in the position table, whose first
    value is the sine of the second column's coordinate, ``base / table side``. Without a table it
    is the published model's.

    Args:
        path: for messages.
        shapes: name -> shape of every tensor.
        headers: the opened files, to read the table from.

    Raises:
        CheckpointError: the tensors are those of another architecture.
    """
    absent = [name for name in _NEEDED if name not in shapes]
    blocks = {int(match[1]) for name in shapes if (match := _BLOCK.match(name))}
    if absent or not blocks:
        found = ", ".join(sorted(shapes)[:3]) or "no tensor at all"
        raise CheckpointError(
            f"{path}: not a DiT4SR transformer: it lacks {', '.join(absent[:3])}"
            f" and holds {found}, ...",
            hint="name the DiT4SR transformer's weights",
        )
    patch_weight = _of_rank(path, shapes, "pos_embed.proj.weight", 4)
    hidden, channels, patch, _ = patch_weight
    (head,) = _of_rank(path, shapes, "transformer_blocks.0.attn.norm_q.weight", 1)
    joint = _of_rank(path, shapes, "context_embedder.weight", 2)[1]
    pooled = _of_rank(path, shapes, "time_text_embed.text_embedder.linear_1.weight", 2)[1]
    outputs = _of_rank(path, shapes, "proj_out.weight", 2)[0]
    dual = sorted(b for b in blocks if f"transformer_blocks.{b}.attn2.to_q.weight" in shapes)
    fields = {
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": outputs // max(patch * patch, 1),
        "num_layers": max(blocks) + 1,
        "num_attention_heads": hidden // max(head, 1),
        "attention_head_dim": head,
        "joint_attention_dim": joint,
        "caption_projection_dim": hidden,
        "pooled_projection_dim": pooled,
        "dual_attention_layers": dual,
    }
    if POSITION_TABLE in shapes:
        tokens = _of_rank(path, shapes, POSITION_TABLE, 3)[1]
        side = math.isqrt(tokens)
        fields["pos_embed_max_size"] = side
        fields["sample_size"] = _trained_tokens(headers, side) * patch
    return validate(TransformerConfig, fields, where=str(path), error=CheckpointError)


def _trained_tokens(headers: tuple[Header, ...], side: int) -> int:
    """Side of the training latent in tokens, from the table's sine of coordinate 1 / (side/base).

    The coordinate is at most 1 in every sensible table, so the sine can be inverted; rounding to
    a whole number of tokens absorbs the table's own rounding.
    """
    header = next(h for h in headers if POSITION_TABLE in h.tensors)
    table = header.read(POSITION_TABLE, error=CheckpointError)
    if table.shape[1] < 2:
        return side
    sine = min(max(float(table[0, 1, 0]), -1.0), 1.0)
    return max(round(math.asin(sine) * side), 1)


def _of_rank(path: Path, shapes: Mapping[str, Shape], name: str, rank: int) -> Shape:
    shape = shapes[name]
    if len(shape) != rank:
        raise CheckpointError(f"{path}: tensor {name} has shape {list(shape)}, expected {rank}-D")
    return shape
