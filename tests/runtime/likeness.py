"""How alike two images or latents are."""

import torch


def likeness(a, b):
    """Correlation of all values, -1 ... 1."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
