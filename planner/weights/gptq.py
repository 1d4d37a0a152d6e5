"""GPTQ: round a weight column by column, and let later columns make up for earlier errors.

A layer's output error is ``|(W - Q) x|²`` summed over its inputs, ``tr((W - Q) M (W - Q)ᵀ)`` with
their second moment ``M = E[x xᵀ]``, not ``|W - Q|²``: errors along directions that inputs hardly
have are free. GPTQ (arXiv 2210.17323; after Optimal Brain Surgeon, Hassibi and Stork 1993) rounds
column i of all rows at once and changes the columns not yet rounded so that the error grows least:

    e = (w_i - q_i) / U_ii,      w_j -= e U_ij  for j > i,      M⁻¹ = Uᵀ U, U upper triangular

(its Eq. 2 and 3, in the Cholesky form of its Sec. 3.3), with M damped
(`planner.weights.moment_root`). Steps are those of `quantize_weight_rows`:
the codes alone differ from rounding to nearest. With ``M`` a multiple of the identity they do not.

Asked to search, it goes on from there (ours). Every column in turn is rounded again, given all
others, which the first pass could not know; each change lowers the error. And a row's step is the
best of a few, by that error: the first pass changes what is rounded, and with many bits a row needs
a reach of its own.
"""

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import dequantize_rows
from planner.weights.moment_root import MomentRoot
from planner.weights.row_energy import row_energies
from planner.weights.row_scales import QuantizedRows, quantize_weight_rows
from schemas.manifest import WeightScaleRule

COLUMNS = 128
"""Rounded one by one, before their errors reach the other columns in one product."""
STEPS = (1.0, 0.9, 1.1, 1.2)
"""What a search tries for every row, factors on its step; of equal errors the first is taken."""
SWEEPS = 2
"""Of a search, over all columns."""


def gptq_weight_rows(
    rows: Tensor,
    root: MomentRoot | None,
    bits: int,
    rule: WeightScaleRule,
    *,
    search: bool = False,
) -> QuantizedRows:
    """Quantize a weight by GPTQ.

    Args:
        rows: float32 [out, in].
        root: of the second moment of the inputs; None, where there are none, to round to nearest.
        bits: 1 ... 8.
        rule: how every row's step is found, as of `quantize_weight_rows`; a search begins there.
        search: whether to improve steps and codes, for 10 to 15 times the time.

    Returns:
        The codes; ``squared_error`` is that of the weight, unweighted, larger than that of rounding
        to nearest.

    Raises:
        ValueError: a value is not finite, or too large for a float32 scale.
    """
    nearest = quantize_weight_rows(rows, bits, rule)
    if root is None:
        return nearest
    scale = nearest.scale
    levels = _round_in_turn(rows, scale, root.upper, bits)
    if search:
        damped = root.damped()
        least = _improve(levels, rows, scale, damped, bits)
        for factor in STEPS[1:]:
            tried = nearest.scale * factor
            others = _round_in_turn(rows, tried, root.upper, bits)
            error = _improve(others, rows, tried, damped, bits)
            better = error < least
            levels = torch.where(better, others, levels)
            scale, least = torch.where(better, tried, scale), torch.minimum(error, least)
    codes = levels.mT.to(torch.uint8).contiguous()
    error = row_energies(dequantize_rows(codes, scale, bits) - rows)
    return QuantizedRows(codes, scale, error)


def _round_in_turn(rows: Tensor, scale: Tensor, upper: Tensor, bits: int) -> Tensor:
    """GPTQ's pass: codes as float32 [in, out] of ``rows`` [out, in] at ``scale`` [out]."""
    divisor = torch.where(scale > 0, scale, torch.inf)
    left = rows.mT.clone(memory_format=torch.contiguous_format)  # a column's numbers lie together
    levels = torch.empty_like(left)
    for begin in range(0, len(left), COLUMNS):
        block = left[begin : begin + COLUMNS]
        end = begin + len(block)
        corner = upper[begin:end, begin:end]
        errors = torch.empty_like(block)
        for i in range(len(block)):
            steps = block[i] / divisor
            code = levels[begin + i] = (steps + 2 ** (bits - 1)).floor_().clamp_(0, 2**bits - 1)
            decoded = (code - (2**bits - 1) / 2) * scale
            errors[i] = (block[i] - decoded) / corner[i, i]
            block[i + 1 :].addr_(corner[i, i + 1 :], errors[i], alpha=-1)
        left[end:].addmm_(upper[begin:end, end:].mT, errors, alpha=-1)
    return levels


def _improve(levels: Tensor, rows: Tensor, scale: Tensor, damped: Tensor, bits: int) -> Tensor:
    """Round every column again, given the others, `SWEEPS` times.

    With ``E = Q - W`` and half the gradient of ``E M Eᵀ``, ``G = E M``, the best change of column i
    alone is ``-G_i / M_ii``; it is taken in whole steps.

    Args:
        levels: codes, float32 [in, out], changed in place.
        rows: float32 [out, in].
        scale: float32 [out].
        damped: the moment, symmetric, float32 [in, in].
        bits: of a code.

    Returns:
        What is left of the error ``E M Eᵀ``, float32 [out].
    """
    divisor = torch.where(scale > 0, scale, torch.inf)
    half = (2**bits - 1) / 2
    gradient = damped @ ((levels - half) * scale - rows.mT)
    for _ in range(SWEEPS):
        for begin in range(0, len(levels), COLUMNS):
            block = gradient[begin : begin + COLUMNS]
            end = begin + len(block)
            corner = damped[begin:end, begin:end]
            changes = torch.empty_like(block)
            for i in range(len(block)):
                old = levels[begin + i]
                steps = (block[i] / (corner[i, i] * divisor)).round_()
                new = (old - steps).clamp_(0, 2**bits - 1)
                changes[i] = (new - old) * scale
                levels[begin + i] = new
                block.addr_(corner[i], changes[i])
            gradient[:begin].addmm_(damped[:begin, begin:end], changes)
            gradient[end:].addmm_(damped[end:, begin:end], changes)
    error = (levels - half) * scale - rows.mT
    return (error * gradient).sum(0)
