"""The autoencoder of Stable Diffusion 3.5 out of a single file: ``first_stage_model.*``.

A file of the autoencoder alone, without that prefix, is taken as well. Its configuration is read
off the shapes; group size, scale and shift are those of Stable Diffusion 3.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from artifacts.files.safetensors_io import TensorSpec, read_header
from artifacts.pack.file_names import SCHEDULER_FILES, VAE_FILES
from schemas.errors import CheckpointError

_PREFIX = "first_stage_model."
_GROUPS = 32
_LATENT_CHANNELS = 16
_SCALING_FACTOR, _SHIFT_FACTOR = 1.5305, 0.0609
_MAX_LEVELS = 8
_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
_HINT = "name a file of Stable Diffusion 3.5, or its folder"


def write_vae(file: Path, folder: Path) -> None:
    """Write ``vae/`` and ``scheduler/`` of a base model's folder.

    Args:
        file: Stable Diffusion 3.5 in one ``.safetensors`` file, or its autoencoder.
        folder: where they go.

    Raises:
        CheckpointError: the file is damaged, or holds another autoencoder.
        OSError: ``folder`` cannot be written.
    """
    header = read_header(file, error=CheckpointError)
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in header.tensors) else ""
    specs = {
        name.removeprefix(prefix): spec
        for name, spec in header.tensors.items()
        if name.startswith(prefix)
    }
    try:
        config = _config(specs)
    except (KeyError, IndexError, ValueError) as cause:
        raise CheckpointError(
            f"{file}: holds no autoencoder of Stable Diffusion 3.5", hint=_HINT
        ) from cause
    if config["latent_channels"] != _LATENT_CHANNELS:
        raise CheckpointError(
            f"{file}: its autoencoder has {config['latent_channels']} latent channels, that of"
            f" Stable Diffusion 3.5 has {_LATENT_CHANNELS}",
            hint=_HINT,
        )
    state = {
        name: header.read(f"{prefix}{name}", error=CheckpointError)
        for name in specs
        if name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
    }
    converted = _converted(state, config, file)
    for name in (VAE_FILES[0], SCHEDULER_FILES[0]):
        (folder / name).parent.mkdir()
    (folder / VAE_FILES[0]).write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(converted, folder / VAE_FILES[1])
    (folder / SCHEDULER_FILES[0]).write_text(json.dumps(_SCHEDULER, indent=2), encoding="utf-8")


def _config(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Diffusers' configuration of the autoencoder with these tensors."""
    widths: list[int] = []
    while (first := f"encoder.down.{len(widths)}.block.0.conv1.weight") in specs:
        if len(widths) == _MAX_LEVELS:
            raise ValueError("more levels than any autoencoder has")
        widths.append(specs[first].shape[0])
    if not widths or any(width % _GROUPS for width in widths):
        raise ValueError("not its groups")
    blocks = 0
    while f"encoder.down.0.block.{blocks}.conv1.weight" in specs:
        blocks += 1
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": specs["encoder.conv_in.weight"].shape[1],
        "out_channels": specs["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": specs["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": _GROUPS,
        "sample_size": 1024,
        "scaling_factor": _SCALING_FACTOR,
        "shift_factor": _SHIFT_FACTOR,
        "use_quant_conv": "quant_conv.weight" in specs,
        "use_post_quant_conv": "post_quant_conv.weight" in specs,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in specs,
        "force_upcast": True,
    }


def _converted(state: dict[str, Tensor], config: dict[str, Any], file: Path) -> dict[str, Tensor]:
    """The tensors under diffusers' names."""
    from diffusers import AutoencoderKL  # noqa: PLC0415  (a second to import)
    from diffusers.loaders.single_file_utils import (  # noqa: PLC0415
        convert_ldm_vae_checkpoint,
    )

    try:
        converted = convert_ldm_vae_checkpoint(state, config)
        with torch.device("meta"):
            expected = AutoencoderKL.from_config(config).state_dict()
    except (KeyError, AttributeError, ValueError, RuntimeError) as cause:
        raise CheckpointError(f"{file}: its autoencoder is incomplete", hint=_HINT) from cause
    wrong = sorted(
        name
        for name in {*converted, *expected}
        if name not in converted
        or name not in expected
        or converted[name].shape != expected[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{file}: its autoencoder is not that of Stable Diffusion 3.5: {wrong[0]} differs"
            f" ({len(wrong)} tensors in all)",
            hint=_HINT,
        )
    return {name: tensor.contiguous() for name, tensor in converted.items()}
