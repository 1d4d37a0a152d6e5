"""Smoothing ahead of the rotation (ours): channels are evened out by how much energy they bring.

A layer quantizes ``z = (x / s · signs) H`` and ``(W diag(s) · signs) H``. The rotation spreads
both: all numbers of a token, or of a row, share one step, in proportion to their root mean
square. So both errors of the layer's output are, to first order, in proportion to the same product,

    (Σ_i p_i / s_i²) · (Σ_i s_i² |w_i|²),        p_i = E[x_i²],   w_i: column i of the weight,

which is least, by Cauchy and Schwarz, at ``s_i² = sqrt(p_i) / |w_i|``. Norms of columns differ
little beside those of inputs, so they are left out here: ``s_i = p_i^¼``. That needs no weight, so
layers that read the same tensor share the vector, and at run time the prepared input.

A rotation evens out single numbers and changes no norm; this changes the norms.
"""

import torch
from torch import Tensor

LEAST_POWER = 1e-4
"""Of the mean. The measured pictures may have left a channel alone that others use."""


def balancing_vector(power: Tensor) -> Tensor:
    """The smoothing vector of layers whose input has this power.

    It is scaled so that the input keeps its energy, ``Σ p_i / s_i² = Σ p_i``. Then sensitivities,
    which are those of errors in proportion to a token's size and of errors that are white in the
    weight, hold for the smoothed layer as they are, to first order.

    Args:
        power: E[x_i²] of every channel, up to a common factor, [in], not negative.

    Returns:
        float32 [in], finite and positive; ones where all inputs are zero.
    """
    power = power.double()
    mean = power.mean()
    if not float(mean) > 0:
        return torch.ones_like(power, dtype=torch.float32)
    relative = power / mean
    vector = relative.clamp(min=LEAST_POWER) ** 0.25
    return (vector * (relative / vector.square()).mean().sqrt()).float()


def remaining_error(vector: Tensor) -> float:
    """Predicted squared error with a `balancing_vector` over that without, 0 ... 1.

    That is its mean square, where columns of the weight are equally large.
    """
    return float(vector.double().square().mean())
