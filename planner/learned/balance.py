"""Where smoothing starts: balances of channels between activations and weights, by formula.

    x Wᵀ = (x / s) (W diag(s))ᵀ

PassionSR's equivalent scale (arXiv 2411.17106) takes a channel's largest magnitudes,

    s = (max|x| / max|W|)^0.3,

and PTQ4DiT (arXiv 2405.16005) their geometric mean, with the activation's salience averaged over
timesteps: those where it goes least with the weight's count most (rho is Spearman's correlation of
the two over channels),

    s = (xbar / max|W|)^0.5,      xbar = sum_t softmax_t(-rho_t) max|x_t|.

Whatever a method makes of it, `s` is a pack's smoothing.
"""

from collections.abc import Collection
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from planner.learned.trajectories import Trajectories, guided_velocity
from runtime.network.family import LatentNetwork
from runtime.pipeline import Prompts

Balance = Literal["none", "passionsr", "salience"]
BALANCES: tuple[Balance, ...] = get_args(Balance)

EXPONENTS = {"passionsr": 0.3, "salience": 0.5}
LARGEST = 1e3
"""Smoothing is kept within 1 / LARGEST ... LARGEST."""


@torch.no_grad()
def channel_maxima(
    network: LatentNetwork,
    layers: Collection[str],
    pictures: Trajectories,
    prompts: Prompts,
    guidance: float,
    batch: int,
) -> dict[str, Tensor]:
    """Largest magnitude of every channel of every layer's input at every step, [steps, in]."""
    found: dict[str, Tensor] = {}
    step = 0

    def look(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        largest = inputs[0].detach().abs().flatten(0, -2).amax(0)
        if name not in found:
            found[name] = largest.new_zeros((len(pictures.timesteps), len(largest)))
        found[name][step] = torch.maximum(found[name][step], largest)

    hooks = [
        network.get_submodule(name).register_forward_pre_hook(partial(look, name))
        for name in layers
    ]
    try:
        for inputs in pictures.all(batch):
            step = inputs.step
            guided_velocity(network, inputs, prompts, guidance, None)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def balance_smoothing(balance: Balance, maxima: Tensor, weight: Tensor) -> Tensor:
    """``s`` [in] of geometric mean 1; a channel that is always 0, on either side, keeps 1.

    Args:
        balance: which formula.
        maxima: of the input's channels at every step, [steps, in].
        weight: [out, in].
    """
    of_weight = weight.float().abs().amax(0)
    of_input = maxima.amax(0) if balance == "passionsr" else _salience(maxima, of_weight)
    alive = (of_input > 0) & (of_weight > 0)
    smoothing = torch.ones_like(of_weight)
    if bool(alive.any()):
        logs = EXPONENTS[balance] * (of_input[alive].log() - of_weight[alive].log())
        smoothing[alive] = (logs - logs.mean()).exp().clamp(1 / LARGEST, LARGEST)
    return smoothing


def _salience(maxima: Tensor, of_weight: Tensor) -> Tensor:
    """Activation salience over all steps [in]."""
    correlations = torch.stack([spearman(at_step, of_weight) for at_step in maxima])
    return torch.softmax(-correlations, 0) @ maxima


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two vectors [n], a scalar; 0 where one is constant.

    Of equal values the one that comes first has the lower rank.
    """
    ranks = [values.argsort(stable=True).argsort().float() for values in (a, b)]
    first, second = (rank - rank.mean() for rank in ranks)
    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return a.new_zeros(())
    return (first @ second) / (first.norm() * second.norm())
