"""Where the planner runs a network, or quantizes: apart, because it needs no image library."""

import torch

from runtime.device import device_and_dtype


def choose_device(name: str) -> tuple[torch.device, torch.dtype]:
    """Where the network runs and in which dtype, chosen as `qrun` chooses.

    Raises:
        UsageError: there is no such device here.
    """
    return device_and_dtype(name, "auto")
