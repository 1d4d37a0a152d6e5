"""Quantizing the rows of a weight, each with a step that suits it, and what that costs.

A row with outliers needs a wider step than a normal row of its mean square, and one without, above
all at many bits, a narrower. The rule ``mse`` (ours; a usual choice elsewhere) tries steps from a
little below the normal row's to the one that spans the row's largest magnitude, in geometric
progression, and takes the one of least squared error.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import row_scales
from planner.weights.row_energy import row_chunks, row_energies
from schemas.manifest import ScaleRule, WeightScaleRule

CANDIDATES = (-0.25, 0.25, 0.5, 0.75, 1.0)
"""Exponents beside 0, the normal row's step; 1 is the largest magnitude's."""


class QuantizedRows(NamedTuple):
    """A weight as codes.

    Attributes:
        codes: uint8 [out, in].
        scale: the step of every row, float32 [out].
        squared_error: of every row as it decodes, float64 [out].
    """

    codes: Tensor
    scale: Tensor
    squared_error: Tensor


def quantize_weight_rows(rows: Tensor, bits: int, rule: WeightScaleRule) -> QuantizedRows:
    """Quantize a weight, row by row.

    Args:
        rows: float32 [out, in].
        bits: 1 ... 8.
        rule: ``gaussian`` or ``absmax`` as in `artifacts.codec.gaussian_quantizer.step_rule`, or
            ``mse``.

    Raises:
        ValueError: a value is not finite, or too large for a float32 scale.
    """
    codes = torch.empty_like(rows, dtype=torch.uint8)
    scale = rows.new_empty(len(rows))
    error = rows.new_empty(len(rows), dtype=torch.float64)
    for part in row_chunks(rows.shape):
        chunk = rows[part]
        scale[part] = _best_scales(chunk, bits) if rule == "mse" else _scales(chunk, bits, rule)
        levels, error[part] = _rounded(chunk, scale[part], bits)
        codes[part] = levels
    return QuantizedRows(codes, scale, error)


def _scales(rows: Tensor, bits: int, rule: ScaleRule) -> Tensor:
    """The step of every row by a rule of the quantizer.

    Raises:
        ValueError: a value is not finite, or too large.
    """
    scale = row_scales(rows, bits, rule)
    if not bool(torch.isfinite(scale).all()):
        raise ValueError("a value is not finite, or too large for a float32 scale")
    return scale


def _best_scales(rows: Tensor, bits: int) -> Tensor:
    """The step of least squared error for every row, of those tried."""
    normal, widest = _scales(rows, bits, "gaussian"), _scales(rows, bits, "absmax")
    ratio = torch.where(normal > 0, widest / normal, 1.0)
    best, least = normal, _rounded(rows, normal, bits)[1]
    for exponent in CANDIDATES:
        tried = normal * ratio**exponent
        error = _rounded(rows, tried, bits)[1]
        best = torch.where(error < least, tried, best)
        least = torch.minimum(error, least)
    return best


def _rounded(rows: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The codes of `artifacts.codec.gaussian_quantizer.encode_rows`, and what they leave.

    Returns:
        Codes as whole float32 numbers [rows, in], and the squared error of every row, float64.
    """
    divisor = torch.where(scale > 0, scale, torch.inf)[:, None]
    steps = (rows / divisor).add_(2 ** (bits - 1))
    levels = steps.floor().clamp_(0, 2**bits - 1)
    # A level stands half a step above the border that the code counts from.
    off = torch.linalg.vector_norm(steps.sub_(levels).sub_(0.5), dim=1)
    error = (off.double() * scale.double()).square()
    if not bool(scale.all()):  # such a row decodes to zeros
        error = torch.where(scale > 0, error, row_energies(rows))
    return levels, error
