"""What is compared: bicubic interpolation, the network, its packs, and other people's models."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack
from runtime.images.resizing import SCALE, resize
from runtime.load import load_full_precision, load_pack
from runtime.pipeline import Pipeline
from runtime.upscale import upscale
from schemas.errors import UsageError

Upscaler = Callable[[Tensor, int], Tensor]
"""Small picture [1, 3, h, w] in 0 ... 1 and a seed -> the enlarged one [1, 3, 4h, 4w]."""


@dataclass(frozen=True)
class Method:
    """One way to enlarge.

    Attributes:
        name: of its folder of pictures.
        label: for readers.
        identity: all that its pictures depend on beside input and seed, as JSON values.
        open: makes it ready; slow, so only called when a picture is missing.
    """

    name: str
    label: str
    identity: Mapping[str, Any]
    open: Callable[[], Upscaler]

    @property
    def is_pack(self) -> bool:
        """Whether it is a pack of the network."""
        return "manifest" in self.identity


BICUBIC = Method(
    "bicubic",
    "bicubic",
    {"resize": "bicubic"},
    lambda: lambda small, _seed: resize(small, (SCALE * small.shape[-2], SCALE * small.shape[-1])),
)


def full_precision(folder: Path) -> Method:
    """The unquantized network, in float32, at its own defaults.

    Raises:
        QPackError: the checkpoint is damaged.
    """
    cpu = torch.device("cpu")
    files = sorted(file.sha256 for file in open_checkpoint(folder).source_files())
    beside = sorted(folder.glob("vae/*")) + sorted(folder.glob("*.*"))
    return Method(
        "full-precision",
        f"{folder.name}, full precision",
        {"source": files, "beside": [_digest(file) for file in beside]},
        lambda: _sampled(load_full_precision(folder, device=cpu, dtype=torch.float32)),
    )


def pack(folder: Path, model: str) -> Method:
    """A pack, in float32 around its quantized layers, at its own defaults.

    Args:
        folder: the pack.
        model: name of what it was made from, for the label.

    Raises:
        QPackError: the pack is damaged.
    """
    target = open_pack(folder).manifest.target
    bits = f"W{target.weight_bits:g}A{target.activation_bits:g}"
    return Method(
        bits.lower(),
        f"{model}, {bits}",
        {"manifest": _digest(folder / "manifest.json")},
        lambda: _sampled(load_pack(folder, device=torch.device("cpu"), dtype=torch.float32)),
    )


def require(label: str, modules: Mapping[str, str], install: str) -> dict[str, str]:
    """Versions of the packages that a peer runs on.

    Args:
        label: of the peer.
        modules: module -> name of its package.
        install: the command that brings them.

    Raises:
        UsageError: one is missing.
    """
    missing = [modules[name] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{label} needs {' and '.join(missing)}, not installed here",
            hint=f"{install}; or leave it out with --methods",
        )
    return {package: importlib.metadata.version(package) for package in modules.values()}


def check_distinct(methods: Sequence[Method]) -> None:
    """Make sure that no two methods share a folder.

    Raises:
        UsageError: two packs have the same bits.
    """
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two packs of {', '.join(twice)}: give one of each")


def _sampled(pipeline: Pipeline) -> Upscaler:
    return lambda small, seed: upscale(pipeline, small, replace(pipeline.sampling, seed=seed))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
