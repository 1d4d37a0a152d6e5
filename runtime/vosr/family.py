"""VOSR's networks as the runtime needs them; `artifacts.vosr.family` is the other half."""

import torch
from torch import Tensor

from artifacts.vosr.config import VosrConfig
from runtime.network.family import LatentNetwork, NetworkFamily
from runtime.vosr.image_encoder import load_image_encoder
from runtime.vosr.network import Vosr
from runtime.vosr.sampling import sample

PROBE_TOKENS = (2, 3)
"""Rows and columns of the probe's latent, in tokens: not square, so that rows and columns which
the network might confuse do not cancel."""
PROBE_FEATURES = 3


def probe_config(config: VosrConfig) -> VosrConfig:
    """Keep the number of blocks of ``config``, and shrink every width."""
    return VosrConfig(
        resolution=32,
        patch_size=1,
        dim=16,
        depth=config.depth,
        num_heads=2,
        mlp_ratio=2,
        ae_type="sd2",
        dinov2_size=28,
        enc_dim=8,
        layer_dinov2b_list=(0,),
        encdim_ratio=1,
    )


def probe_inputs(small: VosrConfig, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Two images at two pairs of times, in float64."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = (2, small.latent_channels, *PROBE_TOKENS)
    return (
        normal(*latent),
        normal(*latent),
        normal(2, PROBE_FEATURES, small.enc_dim),
        torch.tensor([[100.0], [5.0]], dtype=torch.float64),
        torch.tensor([700.0, 20.0], dtype=torch.float64),
    )


def build(config: VosrConfig, _variant: str) -> LatentNetwork:
    """The network."""
    return Vosr(config)


FAMILY = NetworkFamily(
    build=build,
    probe_config=probe_config,
    probe_inputs=probe_inputs,
    sample=sample,
    load_picture_features=load_image_encoder,
)
