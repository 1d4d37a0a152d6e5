"""The derived shapes are those of diffusers' own autoencoder."""

import pytest
import torch
from diffusers import AutoencoderKL

from artifacts.autoencoder.config import AutoencoderConfig
from artifacts.autoencoder.layout import tensor_shapes


def config(**changes):
    blocks = len(changes.get("block_out_channels", (4,)))
    return AutoencoderConfig.model_validate(
        {
            "block_out_channels": [4],
            "norm_num_groups": 2,
            "down_block_types": ["DownEncoderBlock2D"] * blocks,
            "up_block_types": ["UpDecoderBlock2D"] * blocks,
            **changes,
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_out_channels": [4, 6, 6, 10], "layers_per_block": 2},
        {"block_out_channels": [6, 4, 8], "latent_channels": 7, "layers_per_block": 3},
        {"use_quant_conv": False},
        {"use_post_quant_conv": False, "mid_block_add_attention": False},
        # Stable Diffusion 3.5's.
        {
            "block_out_channels": [128, 256, 512, 512],
            "norm_num_groups": 32,
            "latent_channels": 16,
            "layers_per_block": 2,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
    ],
)
def test_shapes_are_those_of_diffusers(changes):
    known = config(**changes)
    with torch.device("meta"):
        vae = AutoencoderKL(**known.model_dump())
    state = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    assert tensor_shapes(known) == state
    assert known.factor == 2 ** (len(known.block_out_channels) - 1)
