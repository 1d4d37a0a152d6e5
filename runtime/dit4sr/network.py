"""The DiT4SR transformer: Stable Diffusion 3.5's MM-DiT with a low-resolution control stream.

Written from the architecture's description (arXiv 2503.23580) on diffusers' embeddings. A published
state dict loads by its own names.
"""

from collections.abc import Sequence

import torch
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings
from torch import Tensor, nn
from torch.nn import functional as F

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.blocks import NORM_EPS, ControlBlock
from runtime.dit4sr.patches import PatchEmbedding
from runtime.network.family import LatentNetwork
from runtime.network.modulation import Conditioning, project_modulations
from runtime.network.projection import ActivationBits, modulate


class FinalNorm(nn.Module):
    """The continuous AdaLN before the output projection (kept in 16 bits)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        """Modulate ``x`` [B, n, C]."""
        (vector,) = project_modulations([self.linear], conditioning, None, x.dtype)
        scale, shift = vector.chunk(2, dim=-1)
        return modulate(F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), shift, scale)


class DiT4SR(LatentNetwork):
    """Predicts the flow-matching velocity of a noisy latent, given its low-resolution latent.

    Args:
        config: shapes of the network.
        variant: ``q`` and ``f`` share one forward pass; ``r1`` has control keys of its own.
    """

    def __init__(self, config: TransformerConfig, variant: str = "q") -> None:
        super().__init__()
        self.config = config
        self.variant = variant
        width, patch = config.hidden_size, config.patch_size
        self.pos_embed = PatchEmbedding(config)
        self.time_text_embed = CombinedTimestepTextProjEmbeddings(
            embedding_dim=width, pooled_projection_dim=config.pooled_projection_dim
        )
        self.context_embedder = nn.Linear(config.joint_attention_dim, width)
        self.transformer_blocks = nn.ModuleList(
            ControlBlock(
                config,
                variant,
                dual=index in config.dual_attention_layers,
                last=index == config.num_layers - 1,
            )
            for index in range(config.num_layers)
        )
        self.norm_out = FinalNorm(width)
        self.proj_out = nn.Linear(width, patch * patch * config.out_channels)

    @property
    def recomputable(self) -> Sequence[nn.Module]:
        """The transformer blocks."""
        return list(self.transformer_blocks)

    def modulation_input(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """SiLU of the embedded timesteps [B] and pooled prompts [B, P]: [B, C]."""
        return F.silu(self.time_text_embed(timestep, pooled))

    def forward(
        self,
        hidden_states: Tensor,
        control: Tensor,
        prompt_embeds: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        activation_bits: ActivationBits | None = None,
    ) -> Tensor:
        """Predict the velocity of ``hidden_states``.

        Args:
            hidden_states: noisy latent [B, C, h, w]; h and w are multiples of the patch size.
            control: low-resolution latent, same shape.
            prompt_embeds: prompt tokens [B, m, joint_attention_dim].
            pooled: pooled prompt [B, pooled_projection_dim].
            timestep: the scheduler's timestep of every image [B], 0 ... 1000.
            activation_bits: bits of every quantized layer at this timestep, by layer name.

        Returns:
            The velocity [B, out_channels, h, w].

        Raises:
            ValueError: the latents differ in shape, do not divide into patches, or are larger
                than the position table.
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

        latent = torch.cat([self.pos_embed(hidden_states), self.pos_embed(control)], dim=1)
        text = self.context_embedder(prompt_embeds)
        conditioning = self.condition(timestep, pooled)
        for block in self.transformer_blocks:
            latent, text = block(latent, text, conditioning, grid, activation_bits)

        image = latent[:, : grid[0] * grid[1]]
        # [B, n, patch * patch * channels]
        patches = self.proj_out(self.norm_out(image, conditioning))
        patches = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
