"""DiT4SR's networks as the runtime needs them; `artifacts.dit4sr.family` is the other half."""

from typing import Any

import torch
from torch import Tensor

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.measured_blocks import BLOCKS
from runtime.network.family import LatentNetwork, NetworkFamily

PROBE_TOKENS = (2, 3)
"""Rows and columns of the probe's latent, in tokens: not square, so that rows and columns which
the network might confuse do not cancel."""
PROBE_TEXT_TOKENS = 3


def probe_config(config: TransformerConfig) -> TransformerConfig:
    """Keep the block structure of ``config``, and shrink every width."""
    return TransformerConfig(
        num_layers=config.num_layers,
        dual_attention_layers=config.dual_attention_layers,
        qk_norm=config.qk_norm,
        sample_size=8,
        patch_size=1,
        in_channels=2,
        out_channels=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )


def probe_inputs(small: TransformerConfig, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Two images at two timesteps, in float64."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = (2, small.in_channels, *PROBE_TOKENS)
    return (
        normal(*latent),
        normal(*latent),
        normal(2, PROBE_TEXT_TOKENS, small.joint_attention_dim),
        normal(2, small.pooled_projection_dim),
        torch.tensor([700.0, 20.0], dtype=torch.float64),
    )


def build(config: TransformerConfig, variant: str) -> LatentNetwork:
    """The network; brings diffusers, which single blocks do without."""
    from runtime.dit4sr.network import DiT4SR  # noqa: PLC0415

    return DiT4SR(config, variant)


def sample(*arguments: Any, **options: Any) -> Tensor:
    """Flow matching, as `runtime.sampling.sampler.sample`; brings diffusers too."""
    from runtime.sampling import sampler  # noqa: PLC0415

    return sampler.sample(*arguments, **options)


FAMILY = NetworkFamily(
    build=build,
    probe_config=probe_config,
    probe_inputs=probe_inputs,
    sample=sample,
    blocks=BLOCKS,
)
