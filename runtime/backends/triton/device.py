"""What the kernels can do on a device, and whether they can run there at all."""

import importlib.util
from functools import lru_cache

import torch

SMALLEST_CAPABILITY = 80
"""Ampere. Turing's tensor cores (75) multiply 8-bit integers too, but Triton 3.6 compiles no such
product for them."""


@lru_cache(maxsize=32)
def capability(device: torch.device) -> int:
    """Compute capability such as 90; 0 for Triton's interpreter on the CPU."""
    if device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache(maxsize=32)
def multiprocessors(device: torch.device) -> int:
    """How many the device has; 1 for Triton's interpreter on the CPU."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def missing_reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on ``device``, or None when they can. Does not import Triton."""
    if device.type != "cuda":
        return "it runs on CUDA alone"
    if torch.version.hip is not None:
        return "it is written for NVIDIA's tensor cores"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    found = capability(device)
    if found < SMALLEST_CAPABILITY:
        needed, has = (f"{level // 10}.{level % 10}" for level in (SMALLEST_CAPABILITY, found))
        return f"it needs compute capability {needed}, the device has {has}"
    return None
