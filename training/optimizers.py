"""Optimizers: AdamW, and Muon for the matrices inside a transformer's blocks.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal one, so that all
directions learn at one rate. It is made for hidden matrices; embeddings, the output projection,
biases, norms and depthwise kernels stay with AdamW.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

ADAM_BETAS = (0.9, 0.99)


def adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, *, weight_decay: float = 0.01
) -> Optimizer:
    """AdamW with the betas used throughout."""
    return torch.optim.AdamW(
        parameters, lr=learning_rate, betas=ADAM_BETAS, weight_decay=weight_decay
    )


def muon_and_adamw(
    hidden: nn.Module, whole: nn.Module, *, muon_rate: float, adam_rate: float
) -> list[Optimizer]:
    """Muon for the matrices of ``hidden``, AdamW for every other parameter of ``whole``.

    Args:
        hidden: the stack of blocks, a part of ``whole``.
        whole: the network.
        muon_rate: learning rate of Muon, scaled by ``match_rms_adamw`` (Liu et al. 2025) so that
            an update's root mean square is that of AdamW at the same rate.
        adam_rate: learning rate of AdamW.
    """
    matrices = [p for p in hidden.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in whole.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(
        matrices, lr=muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adamw(others, adam_rate)]
