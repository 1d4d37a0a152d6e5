"""Quantizing the rows of a weight, each with a step that suits it.

A row with outliers needs a wider step than a normal row of its mean square, and one without, above
all at many bits, a narrower. The rule ``mse`` (ours; a usual choice elsewhere) tries steps from a
little below the normal row's to the one that spans the row's largest magnitude, in geometric
progression, and takes the one of least squared error.
"""

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import (
    dequantize_rows,
    encode_rows,
    quantize_rows,
    row_scales,
)
from schemas.manifest import WeightScaleRule

CANDIDATES = (-0.25, 0.25, 0.5, 0.75, 1.0)
"""Exponents beside 0, the normal row's step; 1 is the largest magnitude's."""


def quantize_weight_rows(rows: Tensor, bits: int, rule: WeightScaleRule) -> tuple[Tensor, Tensor]:
    """Quantize a weight, row by row.

    Args:
        rows: float32 [out, in].
        bits: 1 ... 8.
        rule: ``gaussian`` or ``absmax`` as in `artifacts.codec.gaussian_quantizer.step_rule`, or
            ``mse``.

    Returns:
        Codes uint8 [out, in] and scales float32 [out].

    Raises:
        ValueError: a value is not finite, or too large for a float32 scale.
    """
    if rule != "mse":
        return quantize_rows(rows, bits, rule)
    codes, scale = quantize_rows(rows, bits, "gaussian")
    error = _squared_error(rows, codes, scale, bits)
    ratio = torch.where(scale > 0, row_scales(rows, bits, "absmax") / scale, 1.0)
    normal = scale.clone()
    for exponent in CANDIDATES:
        tried = normal * ratio**exponent
        tried_codes = encode_rows(rows, tried, bits)
        tried_error = _squared_error(rows, tried_codes, tried, bits)
        better = tried_error < error
        scale[better], codes[better] = tried[better], tried_codes[better]
        error = torch.minimum(error, tried_error)
    return codes, scale


def _squared_error(rows: Tensor, codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    return dequantize_rows(codes, scale, bits).sub_(rows).square_().sum(1)
