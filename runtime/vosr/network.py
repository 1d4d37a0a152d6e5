"""VOSR's one-step network (arXiv 2604.03225): from noise and a picture's latent to a velocity.

The network is asked for the mean velocity of the way from a time t to a time r, 1 being noise and 0
the picture; one step goes from 1 to 0. Names are those of the published checkpoints.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.vosr.config import VosrConfig
from artifacts.vosr.layout import TIME_WAVES
from runtime.network.family import LatentNetwork
from runtime.network.projection import ActivationBits
from runtime.vosr.blocks import NORM_EPS, VosrBlock
from runtime.vosr.positions import RotaryPositions

TIMESTEPS = 1000
"""A timestep of the samplers is a time of this network times this."""
_LONGEST_PERIOD = 10_000


class PatchEmbedding(nn.Module):
    """Every patch of both latents by itself."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.Conv2d(2 * config.latent_channels, config.dim, patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """``latents`` [B, 2 channels, h, w] -> tokens [B, n, C], row by row."""
        tokens: Tensor = self.proj(latents).flatten(2).transpose(1, 2)
        return tokens


class TimeEmbedding(nn.Module):
    """A time as cosines, then sines, of 128 frequencies; then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WAVES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """Embed times [B] in 0 ... 1, float32 or wider, as [B, C] in the dtype of the weights.

        The published network takes times as they are, not multiplied by 1000.
        """
        half = TIME_WAVES // 2
        steps = torch.arange(half, device=time.device, dtype=time.dtype)
        angles = time[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) / half * steps)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return embedded


class FeatureLayers(nn.Module):
    """Two layers that bring features to the network's width, GELU between."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        between = config.encdim_ratio * config.dim
        self.fc1 = nn.Linear(config.enc_dim, between)
        self.fc2 = nn.Linear(between, config.dim)

    def forward(self, features: Tensor) -> Tensor:
        """``features`` [B, m, enc_dim] -> [B, m, C]."""
        mapped: Tensor = self.fc2(F.gelu(self.fc1(features), approximate="tanh"))
        return mapped


class FinalLayer(nn.Module):
    """Modulated norm, then the patch of every token."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        width = config.dim
        self.norm_final = nn.RMSNorm(width, NORM_EPS)
        self.linear = nn.Linear(width, config.patch_size**2 * config.latent_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """``x`` [B, n, C], ``times`` [B, C] -> [B, n, patch * patch * channels]."""
        shift, scale = self.adaLN_modulation(times)[:, None].chunk(2, dim=-1)
        patches: Tensor = self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
        return patches


class Vosr(LatentNetwork):
    """Predicts the mean velocity from one time to another, given a picture's latent and features.

    Args:
        config: shapes of the network.
    """

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        self.config = config
        width = config.dim
        self.x_embedder = PatchEmbedding(config)
        self.t_embedder = TimeEmbedding(width)
        self.feat_rope = RotaryPositions(config)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(VosrBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config)
        self.layer_norm = nn.LayerNorm(config.enc_dim)
        self.mlp_ca = FeatureLayers(config)
        self.r_embedder = TimeEmbedding(width)

    @property
    def recomputable(self) -> Sequence[nn.Module]:
        """The transformer blocks."""
        return list(self.blocks)

    def forward(
        self,
        hidden_states: Tensor,
        control: Tensor,
        features: Tensor,
        end: Tensor,
        timestep: Tensor,
        activation_bits: ActivationBits | None = None,
    ) -> Tensor:
        """Predict the velocity of ``hidden_states``.

        Args:
            hidden_states: noisy latent [B, C, h, w]; h and w are multiples of the patch size.
            control: low-resolution latent, same shape.
            features: of the picture, by the image encoder [B, m, enc_dim].
            end: where the step ends, as a timestep 0 ... 1000 [B, 1].
            timestep: where it begins [B].
            activation_bits: bits of every quantized layer at this timestep, by layer name.

        Returns:
            The velocity [B, C, h, w].

        Raises:
            ValueError: the latents differ in shape, or do not divide into patches.
        """
        height, width = hidden_states.shape[-2:]
        patch = self.config.patch_size
        if control.shape != hidden_states.shape:
            raise ValueError(
                f"noisy latent {tuple(hidden_states.shape)} and control latent"
                f" {tuple(control.shape)} differ in shape"
            )
        if height % patch or width % patch:
            raise ValueError(f"latent {height}x{width} does not divide into patches of {patch}")
        grid = (height // patch, width // patch)

        tokens = self.x_embedder(torch.cat([control, hidden_states], dim=1))
        times = self.embed_times(timestep, end[:, 0])
        modulation = self.t_block(times).unflatten(1, (6, -1))  # [B, 6, C]
        mapped = self.mlp_ca(self.layer_norm(features))
        rotation = self.feat_rope(grid, tokens)
        for block in self.blocks:
            tokens = block(tokens, modulation, mapped, rotation, activation_bits)

        patches = self.final_layer(tokens, times)
        patches = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))
        velocity: Tensor = patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return velocity

    def embed_times(self, timestep: Tensor, end: Tensor) -> Tensor:
        """``t_embedder(t) + (t - r) r_embedder(r)`` [B, C] of timesteps [B], 0 ... 1000."""
        wide = torch.promote_types(timestep.dtype, torch.float32)
        t, r = timestep.to(wide) / TIMESTEPS, end.to(wide) / TIMESTEPS
        of_end = self.r_embedder(r)
        return self.t_embedder(t) + (t - r)[:, None].to(of_end) * of_end
