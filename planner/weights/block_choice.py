"""Which blocks a weight is cut into for SVD-L, from the energies of its rows alone (ours).

After a rotation the columns of a weight look alike, but rows, which are output channels, differ. So
take a block s_o x s_i for independent normal numbers whose variance r_o is the row's. The square of
its largest singular value tends to ``s_i psi``, psi being the upper edge of the spectrum of a
covariance estimated from s_i samples (Silverstein and Choi, 1995),

    psi = min over a > max r_o of   a (1 + 1/s_i * sum over the other rows o of r_o / (a - r_o)),

the other rows being all but the largest, which has no share in what surrounds it. For equal rows
this is the ``(sqrt(s_o) + sqrt(s_i))^2 r`` behind `artifacts.codec.block_shapes.expected_block`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

POINTS = torch.logspace(-2.5, 1.5, 32)
"""Where the minimum over a is looked for: a / max r_o - 1. The function is flat around it."""


def predicted_shape(
    weight_rows: Tensor, columns: int, shapes: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Of ``shapes`` (s_o, s_i) the one whose blocks are predicted to capture most energy.

    Args:
        weight_rows: squared norm of every row, float64 [out].
        columns: of the weight.
        shapes: at least one, each cutting the weight into whole blocks; the first wins a tie.
    """
    return max(shapes, key=lambda shape: predicted_energy(weight_rows, columns, shape))


def predicted_energy(weight_rows: Tensor, columns: int, shape: tuple[int, int]) -> float:
    """Energy that the leading singular triples of all blocks of ``shape`` should capture.

    Args:
        weight_rows: squared norm of every row, float64 [out].
        columns: of the weight.
        shape: (s_o, s_i).
    """
    rows, block_columns = shape
    variance = weight_rows.view(-1, 1, rows) / columns  # [P, 1, s_o]
    # A block of zeros captures nothing, but has no largest variance to search from.
    variance = variance + torch.finfo(torch.float64).tiny
    largest = variance.amax(-1, keepdim=True)
    tried = largest * (1 + POINTS.to(variance)[:, None])  # [P, points, 1]
    others = (variance / (tried - variance)).sum(-1) - 1 / POINTS.to(variance)
    edge = tried[..., 0] * (1 + others / block_columns)
    # Every block of a row of blocks has the same prediction; there are columns / s_i of them.
    return float(edge.amin(-1).sum()) * columns
