"""From a latent to tokens: one linear map of every patch, and where the patch lies.

A latent sees the middle of the position table, the window of as many rows and columns as it has
patches. The published table is sines and cosines of 384 x 384 places, 0.9 GB in float32 of which
an image of 512 px reads one part in 144; so no table is held. Every pass puts its window together
from one axis, which takes no longer than cutting it out of a table. A checkpoint may bring a table
of other values: that one is held as it was stored, and read instead.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.position_table import sincos_axis, sincos_window


class PatchEmbedding(nn.Module):
    """Tokens of a latent, in the order of rows; named in a state dict as diffusers' ``PatchEmbed``.

    Args:
        config: shapes of the network.

    Attributes:
        proj: every patch by itself, [B, channels, h, w] -> [B, C, rows, columns].
        pos_embed: a position table [1, side * side, C] of a checkpoint's own, in any dtype, or None
            for sines and cosines. A state dict may have it or not.
    """

    pos_embed: Tensor | None
    _axis: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.side = config.pos_embed_max_size
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, patch, stride=patch)
        self.register_buffer("pos_embed", None)
        axis = sincos_axis(config)
        if axis.is_meta:  # the network waits for a state dict, which has no axis
            with torch.device("cpu"):
                axis = sincos_axis(config)
        self.register_buffer("_axis", axis, persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """``latent`` [B, channels, h, w] -> tokens [B, rows * columns, C].

        Raises:
            ValueError: it is larger than the position table.
        """
        patches = self.proj(latent)
        tokens = patches.flatten(2).transpose(1, 2)
        return (tokens + self.positions(*patches.shape[2:])).to(tokens.dtype)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The middle window of the table, [1, rows * columns, C] in the dtype of the weights.

        Raises:
            ValueError: it is larger than the table.
        """
        if max(rows, columns) > self.side:
            raise ValueError(
                f"{rows}x{columns} patches are more than the position table's"
                f" {self.side}x{self.side}"
            )
        top, left = (self.side - rows) // 2, (self.side - columns) // 2
        if self.pos_embed is None:
            axis = self._axis.to(self.proj.weight.dtype)
            return sincos_window(rows=axis[top : top + rows], columns=axis[left : left + columns])
        grid = self.pos_embed.unflatten(1, (self.side, self.side))
        window = grid[:, top : top + rows, left : left + columns].to(self.proj.weight.dtype)
        return window.flatten(1, 2)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Make room for a table that the state dict has: torch ignores it where there is None."""
        given = state_dict.get(prefix + "pos_embed")
        if given is not None and self.pos_embed is None:
            weight = self.proj.weight
            shape = (1, self.side**2, len(weight))
            self.pos_embed = torch.empty(shape, dtype=given.dtype, device=weight.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
