"""The outside peer: SDNQ (https://pypi.org/project/sdnq), applied to the same network's layers.

Equal: the checkpoint, the layers that are quantized, everything around them, the sampling. Not
equal, because it is how SDNQ works: it rounds to the nearest of levels that span the largest
magnitude, in groups of inputs or per channel; it rotates blocks of at most 256 inputs by a Hadamard
matrix without signs; every layer gets the same bits. Activations stay unquantized, unless its own
matrix product is asked for: that takes 8-bit activations, and 8-bit weights, into which it
requantizes narrower ones, for inputs of 32 tokens or more.

SDNQ is no part of the project and no dependency of it (its licence is GPL-3.0-only): whoever wants
the rows installs it, ``pip install sdnq``; without it they are left out.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.quality.storage import FACTOR_BITS

SEED = 0
"""SDNQ finds its factors with torch's randomized decomposition."""


@dataclass(frozen=True)
class PeerStorage:
    """What the quantized layers take.

    Attributes:
        bits_per_weight: codes, scales and zero points as SDNQ holds them, factors at 16 bits.
        groups: how many inputs share a scale: every value that occurs.
    """

    bits_per_weight: float
    groups: tuple[int, ...]


def is_available() -> bool:
    """Whether SDNQ is installed."""
    return importlib.util.find_spec("sdnq") is not None


def sdnq_version() -> str:
    """Version of SDNQ."""
    return importlib.metadata.version("sdnq")


def apply_sdnq(
    network: nn.Module, layers: Sequence[str], settings: Mapping[str, Any]
) -> PeerStorage:
    """Quantize ``layers`` of ``network`` in place.

    Args:
        network: float32, unquantized.
        layers: names of its linear layers.
        settings: of ``SDNQConfig``.

    Raises:
        RuntimeError: SDNQ left a layer, or its factors, out.
    """
    # Compiled kernels would be tested, and built, on import; the arithmetic is the same without.
    os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")
    from sdnq.quantizer import SDNQConfig, sdnq_quantize_layer  # noqa: PLC0415  (optional)

    config = SDNQConfig(**settings)
    bits, weights, groups = 0, 0, set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for name in layers:
            linear = network.get_submodule(name)
            rows, columns = linear.weight.shape
            layer, config = sdnq_quantize_layer(
                linear, config, torch_dtype=torch.float32, param_name=name
            )
            if not hasattr(layer, "sdnq_dequantizer"):
                raise RuntimeError(f"SDNQ left {name} unquantized")
            if settings.get("use_svd") and layer.svd_up is None:
                raise RuntimeError(f"SDNQ found no factors for {name}")
            network.set_submodule(name, layer)
            bits += _bits(layer)
            weights += rows * columns
            groups.add(columns * rows // layer.scale.numel())
    return PeerStorage(bits / weights, tuple(sorted(groups)))


def _bits(layer: nn.Module) -> int:
    """Stored bits of one layer, without its bias."""
    total = 0
    for part in ("weight", "scale", "zero_point"):
        tensor = getattr(layer, part, None)
        if tensor is not None:
            total += 8 * tensor.numel() * tensor.element_size()
    for part in ("svd_up", "svd_down"):
        tensor = getattr(layer, part, None)
        if tensor is not None:
            total += FACTOR_BITS * tensor.numel()
    return total
