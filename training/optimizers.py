"""Optimizers: AdamW, and Muon for the matrices inside a transformer's blocks.

Muon replaces a matrix's momentum by the nearest orthogonal one, so that all directions learn at one
rate. It is made for hidden matrices; embeddings, the output projection,
biases, norms and depthwise kernels stay with AdamW. Where a step is as short as on one processor
core, the orthogonalisation costs nearly as much as the gradient, so AdamW is the default.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.muon import Muon

ADAM_BETAS = (0.9, 0.99)
ADAM_RATE = 1e-3
MUON_RATE = 2e-3
"""On AdamW's scale."""

OptimizerName = Literal["adamw", "muon"]


def adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, *, weight_decay: float = 0.01
) -> Optimizer:
    """AdamW with the betas used throughout."""
    chosen = list(parameters)
    on_gpu = all(p.is_cuda for p in chosen)
    return torch.optim.AdamW(
        chosen,
        lr=rate_on(chosen[0].device, learning_rate),
        betas=ADAM_BETAS,
        weight_decay=weight_decay,
        fused=on_gpu,
        capturable=on_gpu,
    )


def rate_on(device: torch.device, rate: float) -> float | Tensor:
    """A learning rate; on a GPU a tensor, whose value a captured step reads anew each time."""
    return rate if device.type == "cpu" else torch.tensor(rate, device=device)


def network_optimizers(
    name: OptimizerName, network: nn.Module, hidden: nn.Module
) -> list[Optimizer]:
    """The optimizers of a transformer.

    Args:
        name: ``adamw`` for all parameters, or ``muon`` for the matrices of ``hidden`` and AdamW for
            the others.
        network: the whole.
        hidden: its stack of blocks.
    """
    if name == "adamw":
        return [adamw(network.parameters(), ADAM_RATE)]
    matrices = [p for p in hidden.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in taken]
    return [Muon(matrices, rate_on(matrices[0].device, MUON_RATE)), adamw(others, ADAM_RATE)]
