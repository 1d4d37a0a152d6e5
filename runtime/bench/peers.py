"""Quantizers of others, where they are installed: SDNQ's and torchao's 8-bit products.

They are no part of the project and no dependency of it. Each converts the same linear layers of the
same block; everything around these stays the project's own. Neither rotates nor has factor
branches here: activations are quantized per token to 8 bits at run time, weights per channel.

What they print goes to stderr: stdout is for results.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

_FLOAT8_CAPABILITY = (8, 9)
"""Ada, the first with 8-bit float products."""

_SDNQ_COMPILES = "SDNQ_USE_TORCH_COMPILE"

Apply = Callable[[nn.Module, Sequence[str], torch.dtype], None]
"""Converts the named layers of a module, which has the dtype, in place."""


@dataclass(frozen=True)
class Peer:
    """One quantizer of others.

    Attributes:
        name: what tables call it.
        package: where it comes from.
        apply: converts layers.
        compiles_itself: whether it brings its own use of ``torch.compile``.
        missing: why it cannot run on a device, or None where it may.
    """

    name: str
    package: str
    apply: Apply
    compiles_itself: bool
    missing: Callable[[torch.device], str | None]

    @property
    def version(self) -> str | None:
        """Of the installed package; None without."""
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(self.package)
        return None


def all_peers(*, compiling: bool) -> list[Peer]:
    """Every quantizer that is compared with, installed or not.

    Args:
        compiling: whether SDNQ may compile its own functions, as it does by default.
    """
    own = os.environ.get(_SDNQ_COMPILES)  # who has set it knows better
    compiles = compiling if own is None else own.lower() not in {"0", "false", "no"}
    return [
        Peer(
            "SDNQ int8" + ", compiled by itself" * compiles,
            "sdnq",
            partial(_apply_sdnq, compiles=compiles),
            True,
            lambda device: _not_installed("sdnq"),
        ),
        Peer(
            "torchao int8 dynamic",
            "torchao",
            lambda module, names, dtype: _apply_torchao(
                module, names, "Int8DynamicActivationInt8WeightConfig"
            ),
            False,
            lambda device: _not_installed("torchao"),
        ),
        Peer(
            "torchao fp8 dynamic",
            "torchao",
            lambda module, names, dtype: _apply_torchao(
                module, names, "Float8DynamicActivationFloat8WeightConfig"
            ),
            False,
            lambda device: _not_installed("torchao") or _without_float8(device),
        ),
    ]


def _not_installed(package: str) -> str | None:
    found = package in sys.modules or importlib.util.find_spec(package) is not None
    return None if found else f"{package} is not installed"


def _without_float8(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "it runs on CUDA alone"
    if torch.cuda.get_device_capability(device) < _FLOAT8_CAPABILITY:
        return "the device has no 8-bit float products"
    return None


def _apply_sdnq(
    module: nn.Module, names: Sequence[str], dtype: torch.dtype, *, compiles: bool
) -> None:
    """Per-channel int8 weights and SDNQ's own integer product.

    Raises:
        RuntimeError: it left a layer as it was.
    """
    os.environ[_SDNQ_COMPILES] = str(int(compiles))  # read when it is imported
    logging.getLogger("sdnq").setLevel(logging.ERROR)  # it warns anew for every configuration
    with contextlib.redirect_stdout(sys.stderr):
        quantizer: Any = importlib.import_module("sdnq.quantizer")
        config = quantizer.SDNQConfig(weights_dtype="int8", use_quantized_matmul=True)
        for name in names:
            layer, config = quantizer.sdnq_quantize_layer(
                module.get_submodule(name), config, torch_dtype=dtype, param_name=name
            )
            if not hasattr(layer, "sdnq_dequantizer"):
                raise RuntimeError(f"SDNQ left {name} unquantized")
            module.set_submodule(name, layer)


def _apply_torchao(module: nn.Module, names: Sequence[str], config_name: str) -> None:
    """One of torchao's settings, by its name."""
    with contextlib.redirect_stdout(sys.stderr):
        quantization: Any = importlib.import_module("torchao.quantization")
        make = getattr(quantization, config_name)
        try:
            # The compiler's settings are global: other candidates would be compiled by them, too.
            config = make(set_inductor_config=False)
        except TypeError:  # a version without that choice
            config = make()
        wanted = set(names)
        quantization.quantize_(module, config, filter_fn=lambda layer, name: name in wanted)
