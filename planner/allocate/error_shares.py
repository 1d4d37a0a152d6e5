"""Why a layer has its bits: its share of the error that the first-order model predicts.

With the costs of `planner.allocate.sensitivity` and a bit grid, the predicted squared error of the
final latent is a sum over layers and steps. What a layer adds to it, over the whole sum, tells
where the error that is left arises.
"""

import math
from collections.abc import Mapping

from artifacts.codec.gaussian_quantizer import gaussian_level
from planner.allocate.sensitivity import ActivationCosts
from schemas.bit_grid import BitGrid
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ErrorShare

SIGNIFICANT_DIGITS = 4


def kappa(bits: int) -> float:
    """Mean squared error of N(0, 1) in ``bits``; none where it is not quantized."""
    return 0.0 if bits == UNQUANTIZED else gaussian_level(bits).mse


def error_shares(
    weights: Mapping[str, float], activations: ActivationCosts, grid: BitGrid
) -> dict[str, ErrorShare]:
    """Layer name -> what its weight and its activations add to the predicted error, over all.

    Args:
        weights: squared error of the final latent per unit of κ, of every layer's weight.
        activations: the same of every layer's activations at every timestep of theirs.
        grid: bits of every layer; a timestep that it lacks has those of the nearest.

    Returns:
        Shares that sum to 1 but for rounding; nothing where no error is predicted.
    """
    steps = [grid.nearest_step(timestep) for timestep in activations.timesteps]
    found = {}
    for name, cost in weights.items():
        bits = grid.layers[name]
        found[name] = (
            cost * kappa(bits.weight_bits),
            math.fsum(
                at_step * kappa(bits.activation_bits[step])
                for at_step, step in zip(activations.layers[name], steps, strict=True)
            ),
        )
    total = math.fsum(part for parts in found.values() for part in parts)
    if not total:
        return {}
    return {
        name: ErrorShare(weights=_short(weight / total), activations=_short(activation / total))
        for name, (weight, activation) in found.items()
    }


def _short(share: float) -> float:
    return float(f"{share:.{SIGNIFICANT_DIGITS}g}")
