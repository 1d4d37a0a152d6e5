"""The sin-cos position table, rebuilt instead of stored (453 MB of the published checkpoint).

Axis coordinates are ``i / (table side / base)``, base being the side of the training latent in
tokens. With C channels and ``omega_j = 10000^(-j / (C/4))``, a coordinate p becomes
``[sin(p omega), cos(p omega)]`` [C/2]; a token at (row, column) is the column's half, then the
row's. This is the table that diffusers' ``PatchEmbed`` builds; a test holds the two equal.

Both halves come from one axis of C/2 numbers a coordinate: whoever reads a window of the table
keeps the axis, 384 times smaller in the published network, and puts the window together.
"""

import torch
from torch import Tensor

from artifacts.dit4sr.config import TransformerConfig

_ROUNDING = 2.0**-8
"""Spacing of bfloat16 just below 1. A pack would store the table in bfloat16, so whatever differs
by less cannot be told from rounding."""


def sincos_table(config: TransformerConfig) -> Tensor:
    """The table float32 [1, side * side, hidden size], row-major over tokens."""
    axis = sincos_axis(config)
    return sincos_window(rows=axis, columns=axis)


def is_sincos(table: Tensor, config: TransformerConfig) -> bool:
    """Whether ``table`` [1, side * side, hidden size] equals `sincos_table` up to rounding.

    Compares row by row: a second copy of the table is never made. A NaN is not equal.
    """
    axis = sincos_axis(config)
    side = len(axis)
    if table.shape != (1, side * side, config.hidden_size):
        return False
    by_row = table.view(side, side, 2, -1)
    return all(
        bool(((by_row[row, :, 0] - axis).abs() <= _ROUNDING).all())
        and bool(((by_row[row, :, 1] - axis[row]).abs() <= _ROUNDING).all())
        for row in range(side)
    )


def sincos_axis(config: TransformerConfig) -> Tensor:
    """Embedding of every coordinate of one axis, float32 [side, hidden size / 2]."""
    side = config.pos_embed_max_size
    base = config.sample_size // config.patch_size
    quarter = config.hidden_size // 4
    # Coordinates in float32 and angles in float64, as PatchEmbed has them.
    coordinates = torch.arange(side, dtype=torch.float32) / (side / base)
    omega = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.outer(coordinates.double(), omega)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_window(*, rows: Tensor, columns: Tensor) -> Tensor:
    """A window of the table, [1, R * S, hidden size], row-major over tokens.

    Args:
        rows: the axis at the window's rows [R, hidden size / 2].
        columns: the same at its columns [S, hidden size / 2].
    """
    shape = (len(rows), len(columns), -1)
    halves = [columns[None, :, :].expand(shape), rows[:, None, :].expand(shape)]
    return torch.cat(halves, dim=-1).reshape(1, len(rows) * len(columns), -1)
