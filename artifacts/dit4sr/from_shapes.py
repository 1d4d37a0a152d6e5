"""The configuration of a bare checkpoint, recovered from the names and shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from artifacts.dit4sr.config import MAX_TABLE_SIDE, TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE
from artifacts.family import Shape
from artifacts.files.safetensors_io import TORCH_DTYPES, Header, read_tensor
from schemas.errors import CheckpointError
from schemas.json_io import validate

_BLOCK = re.compile(r"transformer_blocks\.(\d{1,4})\.")
_NEEDED = (
    "pos_embed.proj.weight",
    "context_embedder.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "transformer_blocks.0.attn.norm_q.weight",
    "transformer_blocks.0.attn.to_q_control.weight",
    "proj_out.weight",
)


def missing_names(shapes: Mapping[str, Shape]) -> list[str]:
    """Names that tensors of a DiT4SR would have and these lack; none for a DiT4SR.

    Stable Diffusion 3.5 has most of these names too, but no control stream.
    """
    return [name for name in _NEEDED if name not in shapes]


def is_stable_diffusion_3(shapes: Mapping[str, Shape]) -> bool:
    """Whether these are the tensors of Stable Diffusion 3: a single file's names, or diffusers'."""
    if any("joint_blocks.0.x_block.attn.qkv." in name for name in shapes):
        return True
    patches = any(name.endswith("pos_embed.proj.weight") for name in shapes)
    joint = any(name.endswith("transformer_blocks.0.attn.add_q_proj.weight") for name in shapes)
    return patches and joint and not any("_control." in name for name in shapes)


def config_from_shapes(
    path: Path, shapes: Mapping[str, Shape], headers: tuple[Header, ...]
) -> TransformerConfig:
    """Recover the configuration.

    The training size (``sample_size``) leaves its trace only in the position table, of which one
    row of tokens is read. Without a table, it and the table's side are the published model's.

    Args:
        path: for messages.
        shapes: name -> shape of every tensor; those of `missing_names` are there.
        headers: the opened files, to read the table from.

    Raises:
        CheckpointError: the shapes are no DiT4SR's, or the table cannot be read.
    """
    hidden, channels, patch, _ = _of_rank(path, shapes, "pos_embed.proj.weight", 4)
    (head,) = _of_rank(path, shapes, "transformer_blocks.0.attn.norm_q.weight", 1)
    blocks = {int(match[1]) for name in shapes if (match := _BLOCK.match(name))}
    fields = {
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": _of_rank(path, shapes, "proj_out.weight", 2)[0] // max(patch * patch, 1),
        "num_layers": max(blocks) + 1,
        "num_attention_heads": hidden // max(head, 1),
        "attention_head_dim": head,
        "joint_attention_dim": _of_rank(path, shapes, "context_embedder.weight", 2)[1],
        "caption_projection_dim": hidden,
        "pooled_projection_dim": _of_rank(
            path, shapes, "time_text_embed.text_embedder.linear_1.weight", 2
        )[1],
        "dual_attention_layers": sorted(
            block for block in blocks if f"transformer_blocks.{block}.attn2.to_q.weight" in shapes
        ),
    }
    if POSITION_TABLE in shapes:
        count, tokens, width = _of_rank(path, shapes, POSITION_TABLE, 3)
        side = math.isqrt(tokens)
        fields["pos_embed_max_size"] = side
        # A longer side is refused by the configuration, so nothing need be read for it.
        if count == 1 and 1 <= side <= MAX_TABLE_SIDE and width >= 1:
            fields["sample_size"] = _trained_tokens(headers, side) * patch
    return validate(TransformerConfig, fields, where=str(path), error=CheckpointError)


def _trained_tokens(headers: tuple[Header, ...], side: int) -> int:
    """Side of the training latent in tokens, from the position table's first row of tokens.

    Channel 0 of column i holds ``sin(i base / side)``, base being what is asked for. All columns
    together tell neighbouring bases apart in any precision; from one value alone, bfloat16 could
    not. A frequency from pi on would be mistaken for a lower one, so the search ends at 3 sides.
    """
    header = next(h for h in headers if POSITION_TABLE in h.tensors)
    table = header.tensors[POSITION_TABLE]
    width = table.shape[-1]
    row_bytes = side * width * TORCH_DTYPES[table.dtype].itemsize
    first_row = replace(table, shape=(side, width), end=table.start + row_bytes)
    values = read_tensor(
        header.path,
        first_row,
        name=POSITION_TABLE,
        identity=header.identity,
        error=CheckpointError,
    )
    sines = values[:, 0].double().nan_to_num()  # a NaN is reported when the table itself is used
    columns = torch.arange(side, dtype=torch.float64)

    def misfit(base: int) -> float:
        return float((torch.sin(columns * (base / side)) - sines).square().sum())

    return min(range(1, 3 * side + 1), key=misfit)


def _of_rank(path: Path, shapes: Mapping[str, Shape], name: str, rank: int) -> Shape:
    shape = shapes[name]
    if len(shape) != rank:
        raise CheckpointError(f"{path}: tensor {name} has shape {list(shape)}, expected {rank}-D")
    return shape
