"""The configuration of a bare checkpoint, recovered from the names and shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from artifacts.family import Shape
from artifacts.files.safetensors_io import Header
from artifacts.vosr.config import LATENT_CHANNELS, VAE_FACTOR, VOSR_05B, VOSR_14B, VosrConfig
from artifacts.vosr.layout import ROTARY_COSINES
from schemas.errors import CheckpointError
from schemas.json_io import validate

_BLOCK = re.compile(r"blocks\.(\d{1,4})\.")
_NEEDED = (
    "x_embedder.proj.weight",
    "t_embedder.mlp.0.weight",
    "r_embedder.mlp.0.weight",
    "t_block.1.weight",
    "blocks.0.attn.q_norm.weight",
    "blocks.0.cross_attn.k_linear.weight",
    "blocks.0.mlp.w3.weight",
    "layer_norm.weight",
    "mlp_ca.fc1.weight",
    "final_layer.linear.weight",
)
_ENCODER_BLOCKS = {config.enc_dim: config.encoder_block for config in (VOSR_05B, VOSR_14B)}
_RATIO_PARTS = 4
"""Feed-forwards are as wide as some multiple of a quarter says."""
_HINT = "name the folder that holds args.json"


def missing_names(shapes: Mapping[str, Shape]) -> list[str]:
    """Names that tensors of a one-step VOSR would have and these lack; none for such a network.

    The multi-step network, which it is distilled from, lacks ``r_embedder`` alone.
    """
    return [name for name in _NEEDED if name not in shapes]


def config_from_shapes(
    path: Path, shapes: Mapping[str, Shape], _headers: tuple[Header, ...]
) -> VosrConfig:
    """Recover the configuration.

    The training size leaves its trace only in the rotary table, and the image encoder's block
    nowhere: without the table the size is the published one, and the block is that of the published
    network whose encoder is as wide.

    Args:
        path: for messages.
        shapes: name -> shape of every tensor; those of `missing_names` are there.

    Raises:
        CheckpointError: the shapes are no VOSR's, or say less than is needed.
    """
    width, inputs, patch, _ = _of_rank(path, shapes, "x_embedder.proj.weight", 4)
    (head,) = _of_rank(path, shapes, "blocks.0.attn.q_norm.weight", 1)
    (encoder_width,) = _of_rank(path, shapes, "layer_norm.weight", 1)
    _, hidden = _of_rank(path, shapes, "blocks.0.mlp.w3.weight", 2)
    between, _ = _of_rank(path, shapes, "mlp_ca.fc1.weight", 2)
    autoencoders = [name for name, channels in LATENT_CHANNELS.items() if 2 * channels == inputs]
    if not autoencoders:
        raise CheckpointError(
            f"{path}: x_embedder.proj.weight reads {inputs} channels, which are two latents of no"
            " autoencoder that VOSR is published with"
        )
    if encoder_width not in _ENCODER_BLOCKS:
        raise CheckpointError(
            f"{path}: features of {encoder_width} channels are those of no published VOSR",
            hint=_HINT,
        )
    side = VOSR_05B.trained_tokens
    if ROTARY_COSINES in shapes:
        side = math.isqrt(_of_rank(path, shapes, ROTARY_COSINES, 2)[0])
    fields = {
        "resolution": VAE_FACTOR * patch * side,
        "patch_size": patch,
        "dim": width,
        "depth": 1 + max(int(match[1]) for name in shapes if (match := _BLOCK.match(name))),
        "num_heads": width // max(head, 1),
        "mlp_ratio": round(1.5 * _RATIO_PARTS * hidden / max(width, 1)) / _RATIO_PARTS,
        "ae_type": autoencoders[0],
        "dinov2_size": VOSR_05B.dinov2_size,
        "enc_dim": encoder_width,
        "layer_dinov2b_list": [_ENCODER_BLOCKS[encoder_width]],
        "encdim_ratio": between // max(width, 1),
    }
    return validate(VosrConfig, fields, where=str(path), error=CheckpointError)


def _of_rank(path: Path, shapes: Mapping[str, Shape], name: str, rank: int) -> Shape:
    shape = shapes[name]
    if len(shape) != rank:
        raise CheckpointError(f"{path}: tensor {name} has shape {list(shape)}, expected {rank}-D")
    return shape
