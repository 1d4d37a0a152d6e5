"""Rotary positions of a latent: computed, or a table of a checkpoint's own.

The published checkpoints carry the cosines and sines of the training size, which follow from the
configuration. They are computed here; where a checkpoint brings other values, these are held as
they were stored, and read at the training size, as the published code does.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.vosr.config import VosrConfig
from artifacts.vosr.layout import ROTARY_COSINES, ROTARY_SINES
from artifacts.vosr.rotary_table import rotary_angles
from runtime.vosr.blocks import Rotation

_TABLES = tuple(name.rpartition(".")[2] for name in (ROTARY_COSINES, ROTARY_SINES))


class RotaryPositions(nn.Module):
    """Gives every grid of tokens its rotation.

    Attributes:
        freqs_cos, freqs_sin: tables [tokens, D] of a checkpoint's own, in any dtype, or None. A
            state dict may have them or not.
    """

    freqs_cos: Tensor | None
    freqs_sin: Tensor | None

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        self.config = config
        for name in _TABLES:
            self.register_buffer(name, None)

    def forward(self, grid: tuple[int, int], like: Tensor) -> Rotation:
        """The rotation of ``grid`` (rows, columns), on the device and in the dtype of ``like``."""
        cosines, sines = self.freqs_cos, self.freqs_sin
        trained = (self.config.trained_tokens,) * 2
        if cosines is None or sines is None or grid != trained:
            # On the device from the start: a CUDA graph can hold no copy from the CPU.
            angles = rotary_angles(self.config, *grid, like.device)
            cosines, sines = angles.cos(), angles.sin()
        return Rotation(cosines.to(like), sines.to(like))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Make room for tables that the state dict has: torch ignores them where there are none."""
        for name in _TABLES:
            given = state_dict.get(prefix + name)
            if given is not None and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(given))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
