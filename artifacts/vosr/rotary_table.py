"""Rotary positions of two axes, rebuilt instead of stored.

With heads of D channels, channels 0 ... D/2 - 1 turn by a token's row and the others by its column.
Inside a half, the pair (2 j, 2 j + 1) of a token at coordinate p turns by the angle
``p * 10000^(-2 j / (D/2))``. Coordinates are those of the training latent: of n tokens along an
axis, token i lies at ``i / n * trained tokens``, so a longer axis is stretched, not continued. The
published code knows square latents alone; here each axis is stretched by itself.

The table's cosines and sines are [tokens, D], row-major over tokens, each angle twice.
"""

import torch
from torch import Tensor

from artifacts.vosr.config import VosrConfig

_ROUNDING = 2.0**-8
"""Spacing of bfloat16 just below 1: whatever differs by less cannot be told from rounding."""
_BASE = 10000.0


def rotary_angles(
    config: VosrConfig, rows: int, columns: int, device: torch.device | None = None
) -> Tensor:
    """Angles of a grid of ``rows`` x ``columns`` tokens, float32 [rows * columns, D]."""
    half = config.head_dim // 2
    frequencies = _BASE ** -(torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)

    def along(length: int) -> Tensor:
        places = torch.arange(length, dtype=torch.float32, device=device)
        coordinates = places / length * config.trained_tokens
        return torch.outer(coordinates, frequencies).repeat_interleave(2, dim=1)  # [length, D/2]

    shape = (rows, columns, half)
    halves = [along(rows)[:, None].expand(shape), along(columns)[None].expand(shape)]
    return torch.cat(halves, dim=-1).flatten(0, 1)


def cosines(config: VosrConfig) -> Tensor:
    """The table of cosines at the training size."""
    return rotary_angles(config, config.trained_tokens, config.trained_tokens).cos()


def sines(config: VosrConfig) -> Tensor:
    """The table of sines at the training size."""
    return rotary_angles(config, config.trained_tokens, config.trained_tokens).sin()


def are_cosines(table: Tensor, config: VosrConfig) -> bool:
    """Whether ``table`` equals `cosines` up to rounding; a NaN is not equal."""
    return _near(table, cosines(config))


def are_sines(table: Tensor, config: VosrConfig) -> bool:
    """Whether ``table`` equals `sines` up to rounding; a NaN is not equal."""
    return _near(table, sines(config))


def _near(table: Tensor, expected: Tensor) -> bool:
    return table.shape == expected.shape and bool(((table - expected).abs() <= _ROUNDING).all())
