"""What each effort leaves, against exact factors: full-width weights with and without structure."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from planner.settings import BuildSettings
from planner.weights.effort import EFFORTS
from planner.weights.hsvd import decompose
from planner.weights.layer import rotate
from planner.weights.row_energy import energy
from planner.weights.row_scales import quantize_weight_rows

SHAPES = ((1536, 1536), (6144, 1536), (1536, 6144))
BITS = 4


def structured(weight: Tensor) -> Tensor:
    """``weight`` with a spectrum that decays slowly, outlying inputs and outlying outputs."""
    rows, columns = weight.shape
    generator = torch.Generator().manual_seed(3)
    rank = 256
    left = torch.randn(rows, rank, generator=generator) / math.sqrt(rows)
    right = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
    values = 30 * torch.arange(1, rank + 1) ** -0.5
    made = (left * values) @ right + weight.float()
    made[:, ::97] *= 8
    made[::211] *= 4
    return made.bfloat16()


class Split(NamedTuple):
    """Squared norms of what a weight was split into, and of the residual's quantization error."""

    global_branch: float
    local_branch: float
    residual: float
    error: float


def accuracy(settings: BuildSettings, weights: Mapping[str, Tensor]) -> list[dict[str, object]]:
    """What every effort loses on every weight.

    Shares of the exact branches' energy that are missed, and by how many decibels the residual and
    the layer's error are larger. The reference has an exact global branch and a thorough local one.
    """
    rows: list[dict[str, object]] = []
    for name, weight in weights.items():
        rotated = rotate(weight, settings)
        exact = _exact_global(rotated, settings.global_rank)
        best = _split(exact.float(), replace(settings, global_rank=0, effort="thorough"))
        best_global = energy(rotated) - energy(exact)
        for effort in EFFORTS:
            ours = _split(rotated, replace(settings, effort=effort))
            rows.append(
                {
                    "weight": name,
                    "effort": effort,
                    "global_lost": 1 - ours.global_branch / best_global,
                    "local_lost": 1 - ours.local_branch / best.local_branch,
                    "residual_db": 10 * math.log10(ours.residual / best.residual),
                    "layer_db": 10 * math.log10(ours.error / best.error),
                }
            )
    return rows


def _split(rotated: Tensor, settings: BuildSettings) -> Split:
    total = energy(rotated)
    found = decompose(
        rotated,
        global_rank=settings.global_rank,
        local_rank=settings.local_rank,
        seed=settings.seed,
        effort=EFFORTS[settings.effort],
    )
    error = float(quantize_weight_rows(found.residual, BITS, "gaussian").squared_error.sum())
    branches = (found.global_energy * total, found.local_energy * total)
    return Split(*branches, energy(found.residual), error)


def _exact_global(rotated: Tensor, rank: int) -> Tensor:
    """``rotated`` without its best rank-``rank`` approximation, float64."""
    tall = rotated.double() if rotated.shape[0] >= rotated.shape[1] else rotated.mT.double()
    vectors = torch.linalg.eigh(tall.mT @ tall)[1][:, -rank:]
    left = tall - (tall @ vectors) @ vectors.mT
    return left if rotated.shape[0] >= rotated.shape[1] else left.mT
