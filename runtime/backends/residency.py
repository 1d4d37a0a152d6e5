"""Whether quantized weights lie in a GPU's memory as whole bytes, or packed at their own bits.

Bytes are what the integer units multiply. Unpacking costs time (`docs/gpu.md`), and saves about
half of the weights' memory at four bits.
"""

import logging

import torch

from artifacts.pack.opened import Pack
from runtime.backends import BACKENDS, find_backend
from runtime.backends.trial import trial_of
from runtime.free_memory import free_bytes
from schemas.errors import UsageError

logger = logging.getLogger(__name__)

WORKING_BYTES = 3 * 2**30
"""Beside a network: activations and CUDA graphs of full-size tiles, and a VAE tile of 512 px."""
_BYTES, _PACKED = "triton", "triton-packed"


def resident_backend(
    backend: str, memory: str, pack: Pack, device: torch.device, dtype: torch.dtype
) -> str:
    """The name of the backend that ``memory`` makes of ``backend``.

    Args:
        backend: a name, or ``auto``.
        memory: ``fast``, ``low``, or ``auto``: packed where bytes and what an upscale takes beside
            them are more than is free.
        pack: to be loaded.
        device: where to.
        dtype: of what is not quantized.

    Raises:
        UsageError: both a backend and a memory are asked for.
        ResourceError: trying a backend made the device unusable.
    """
    if backend != "auto":
        if memory != "auto":
            raise UsageError(
                f"--memory {memory} chooses a backend, and --backend {backend} is one",
                hint="leave one out",
            )
        return backend
    if memory == "fast" or device.type != "cuda" or BACKENDS[_PACKED].missing(device):
        return backend
    if find_backend("auto", device, trial_of(pack, dtype)).name != _BYTES:
        return backend
    free = free_bytes(device)
    needed = network_bytes(pack) + WORKING_BYTES
    if memory == "auto":
        if free is None or needed <= free:
            return backend
        logger.info(
            "weights stay packed: %.1f GiB are free, and %.1f would be taken (--memory fast)",
            free / 2**30,
            needed / 2**30,
        )
    return _PACKED


def network_bytes(pack: Pack) -> int:
    """What a pack's files take in memory with one byte for every quantized weight."""
    stored = sum(file.bytes for file in pack.manifest.files.values())
    records = (pack.manifest.layers[name] for name in pack.layer_names)
    unpacking = sum(
        record.out_features * record.in_features * (8 - record.weight_bits) // 8
        for record in records
    )
    return stored + unpacking
