"""Where training computes, and in which precision."""

import torch


def autocast(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the hardware has units for it, otherwise in float32.

    Without AMX a processor emulates bfloat16 products and is slower than in float32.
    """
    if device.type == "cpu":
        native = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
        return torch.autocast("cpu", torch.bfloat16, enabled=native)
    return torch.autocast(device.type, torch.bfloat16)
