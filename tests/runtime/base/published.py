"""A tiny model whose parts are those of the published one in kind: SD3's VAE, CLIP-L and -G, T5."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from artifacts.dit4sr.config import TransformerConfig
from runtime.base.files import BaseFiles
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.planner.make_base import make_base

CLIP_WIDTH, T5_WIDTH = 64, 136
VAE = {
    "block_out_channels": (32, 32, 64, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "layers_per_block": 1,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
    "sample_size": 1024,
}
CONFIG = TransformerConfig(
    sample_size=64,
    num_layers=1,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=T5_WIDTH,
    caption_projection_dim=32,
    pooled_projection_dim=2 * CLIP_WIDTH,
    pos_embed_max_size=48,
    dual_attention_layers=(0,),
)


def make_published_base(path: Path) -> Path:
    """Write the base model as diffusers has it."""
    widths = (CLIP_WIDTH, CLIP_WIDTH)
    return make_base(path, clip_widths=widths, t5_width=T5_WIDTH, vae_config=VAE)


def make_bare_transformer(path: Path) -> Path:
    """Write the transformer that belongs to it, as one file."""
    return write_file(path, random_state(CONFIG))


def make_single_files(base: Path, path: Path) -> BaseFiles:
    """Write the parts of ``base`` as the files that ComfyUI works with."""
    path.mkdir()
    state = load_file(base / "vae" / "diffusion_pytorch_model.safetensors")
    levels = len(VAE["block_out_channels"])
    original = {f"first_stage_model.{original_name(n, levels)}": t for n, t in state.items()}
    for name, tensor in original.items():
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            original[name] = tensor[:, :, None, None].contiguous()
    save_file({"model.diffusion_model.x": torch.zeros(3), **original}, path / "sd35")
    for number, name in (("", "clip_l"), ("_2", "clip_g"), ("_3", "t5xxl")):
        tensors = load_file(base / f"text_encoder{number}" / "model.safetensors")
        save_file(tensors, path / f"{name}.safetensors")
    encoders = [path / f"{name}.safetensors" for name in ("clip_l", "clip_g", "t5xxl")]
    return BaseFiles(path / "sd35", *encoders, tokenizers=base)


def original_name(name: str, levels: int) -> str:
    """The name that the autoencoder's authors gave to a tensor of diffusers'."""
    name = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{levels - 1 - int(found[1])}", name)
    for new, old in (
        (r"down_blocks\.(\d)", r"down.\1"),
        (r"(down|up)\.(\d)\.resnets\.(\d)", r"\1.\2.block.\3"),
        (r"(down|up)samplers\.0\.conv", r"\1sample.conv"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"group_norm", "norm"),
        (r"to_(q|k|v)\.", r"\1."),
        (r"to_out\.0", "proj_out"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
    ):
        name = re.sub(new, old, name)
    return name
