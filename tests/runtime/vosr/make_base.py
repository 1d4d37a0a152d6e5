"""A tiny base of VOSR: an autoencoder of factor 8, a scheduler, and a DINOv2."""

import json

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from artifacts.autoencoder.files import CONFIG, WEIGHTS
from artifacts.autoencoder.qwen import (
    QWEN_CLASS_NAME,
    QwenAutoencoderConfig,
    qwen_tensor_shapes,
)

VAE = {
    "block_out_channels": (4, 4, 4, 4),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "layers_per_block": 1,
}
ENCODER = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "patch_size": 14,
    "image_size": 70,  # positions are interpolated to the 56 px that the tiny network asks for
    "layerscale_value": 0.5,
}


def make_encoder(path, **changes):
    """Write ``image_encoder/``; weights are the same every time, and no small ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Dinov2Model(Dinov2Config(**ENCODER | changes))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(path / "image_encoder")
    return path


def make_base(path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(**VAE).save_pretrained(path / "vae")
    DDIMScheduler().save_pretrained(path / "scheduler")
    return make_encoder(path)


def make_qwen_vae(path):
    """Write ``vae/`` as the network of 16 latent channels has it."""
    config = QwenAutoencoderConfig(
        base_dim=4,
        z_dim=16,
        dim_mult=(1, 2, 2, 2),
        num_res_blocks=1,
        latents_mean=tuple(0.1 * channel for channel in range(16)),
        latents_std=(2.0,) * 16,
    )
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in qwen_tensor_shapes(config).items():
        spread = 1.0 if len(shape) < 4 else (shape[1] * shape[2] * shape[3]) ** -0.5
        state[name] = spread * torch.randn(shape, generator=generator)
    (path / "vae").mkdir(parents=True)
    save_file(state, path / "vae" / WEIGHTS)
    content = {"_class_name": QWEN_CLASS_NAME, **config.model_dump(mode="json")}
    (path / "vae" / CONFIG).write_text(json.dumps(content))
    return path
