"""Where training computes, and in which precision."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for products in bfloat16."""
    if device.type != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name, False)) for name in ("amx_bf16", "avx512_bf16"))


def autocast(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the hardware has units for it, otherwise in float32.

    Without AMX a processor emulates bfloat16 products and is slower than in float32, or gains too
    little to pay for casting the weights of a whole network at every step.
    """
    if device.type == "cpu":
        native = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
        return torch.autocast("cpu", torch.bfloat16, enabled=native)
    return torch.autocast(device.type, torch.bfloat16)
