"""A tiny base of VOSR: an autoencoder of factor 8, a scheduler, and a DINOv2."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import Dinov2Config, Dinov2Model

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
