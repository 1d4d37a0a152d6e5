"""A whole pipeline of random weights, small enough to upscale a picture in a tenth of a second."""

import torch
from diffusers import AutoencoderKL

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from runtime.dit4sr.network import DiT4SR
from runtime.pipeline import Pipeline, Prompts
from runtime.sampling.settings import UpscaleSettings

CONFIG = TransformerConfig(
    sample_size=16,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=24,
    caption_projection_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=32,
    dual_attention_layers=(0,),
)


def make_tiny_pipeline() -> Pipeline:
    """Build the pipeline; its weights are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=16,
            norm_num_groups=4,
            layers_per_block=1,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        prompts = Prompts(torch.randn(5, 24), torch.randn(16), torch.randn(5, 24), torch.randn(16))
        network = DiT4SR(CONFIG)
    return Pipeline(
        architecture=Architecture(FAMILY, network.config, network.variant),
        network=network.eval(),
        vae=vae.eval(),
        prompts=prompts,
        bits_at=lambda _timestep: None,
        sampling=UpscaleSettings(
            steps=2, guidance=4.0, shift=3.0, tile=16, overlap=4, min_side_px=64, color_fix="adain"
        ),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
