"""Who is compared: torch without quantization, every backend, quantizers of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from artifacts.family import Architecture
from runtime.backends import BACKENDS
from runtime.bench.block import BenchBlock, Convert
from runtime.bench.peers import Peer, all_peers
from runtime.bench.random_layers import random_layer
from runtime.bench.workload import BitWidths, Ranks
from runtime.network.blocks import BlockKind, Streams
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import QuantizerRecord

QUANTIZER = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")
BASELINE = "torch bfloat16"
"""Shares of memory are of this candidate's."""

Made = TypeVar("Made")
Family = Literal["torch", "backend", "peer"]
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Mode:
    """How a block is called."""

    compiled: bool = False
    graphed: bool = False

    def of(self, name: str) -> str:
        """The name of a candidate that runs in this mode."""
        return name + ", compiled" * self.compiled + ", graph" * self.graphed


EAGER, COMPILED = Mode(), Mode(compiled=True)
GRAPH, COMPILED_GRAPH = Mode(graphed=True), Mode(compiled=True, graphed=True)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One set of layers, called in one or several ways.

    Attributes:
        name: what tables call it.
        family: unquantized torch, one of the project's backends, or a quantizer of others.
        dtype: of everything that is not quantized.
        modes: how blocks of it are called.
        missing: why it cannot run here, or None where it may.
        backend: of the project's, or None.
        peer: of others, or None.
    """

    name: str
    family: Family
    dtype: torch.dtype
    modes: tuple[Mode, ...]
    missing: str | None = None
    backend: str | None = None
    peer: Peer | None = None

    @property
    def mode_names(self) -> list[str]:
        """Names in all modes."""
        return [mode.of(self.name) for mode in self.modes]

    def has_graphed_layers(self, bits: BitWidths) -> bool:
        """Whether a CUDA graph holds a layer: with unquantized activations no backend's does."""
        unquantized = self.backend is not None and bits.activation == UNQUANTIZED
        return any(mode.graphed for mode in self.modes) and not unquantized

    def make_block(
        self,
        architecture: Architecture,
        kind: BlockKind,
        streams: Streams,
        device: torch.device,
        bits: BitWidths,
        ranks: Ranks,
    ) -> BenchBlock:
        """A block of the network with this candidate's layers."""
        block = BenchBlock(
            architecture,
            kind,
            streams,
            device,
            self.dtype,
            convert=self._convert(bits, ranks),
            activation_bits=bits.activation,
        )
        if self.peer is not None:
            self.peer.apply(block.block, block.layer_names, self.dtype)
        return block

    def make_layer(
        self,
        out_features: int,
        in_features: int,
        device: torch.device,
        bits: BitWidths,
        ranks: Ranks,
    ) -> nn.Module:
        """One layer by itself, with a bias."""
        plain = nn.Linear(in_features, out_features, device="meta")
        convert = self._convert(bits, ranks)
        if convert is not None:
            return convert("layer", plain).to(device)
        plain = plain.to_empty(device=device).to(self.dtype).requires_grad_(False)
        nn.init.normal_(plain.weight, std=0.02)
        nn.init.zeros_(plain.bias)
        if self.peer is None:
            return plain
        holder = nn.ModuleDict({"layer": plain})
        self.peer.apply(holder, ["layer"], self.dtype)
        return holder["layer"]

    def _convert(self, bits: BitWidths, ranks: Ranks) -> Convert | None:
        """How this candidate's layers are made; None where they start as plain ones."""
        if self.backend is None:
            return None
        make = BACKENDS[self.backend].make_layer
        generator = torch.Generator().manual_seed(0)

        def convert(name: str, layer: nn.Linear) -> nn.Module:
            sizes = (layer.out_features, layer.in_features)
            record = random_layer(
                name, *sizes, weight_bits=bits.weight, ranks=ranks, generator=generator
            )
            return make(record, QUANTIZER)

        return convert


def all_candidates(
    device: torch.device,
    *,
    backends: Sequence[str] | None,
    compiling: bool,
    peers: bool,
) -> list[Candidate]:
    """Every candidate, those that cannot run here too.

    Args:
        device: where they would run.
        backends: names of the project's backends; None for all.
        compiling: whether SDNQ may compile its own functions.
        peers: compare quantizers of others too.
    """
    graphs = device.type == "cuda"

    def modes(*, compiled: bool, graphed: bool) -> tuple[Mode, ...]:
        found = [EAGER] + [COMPILED] * compiled
        if graphed and graphs:
            found += [GRAPH] + [COMPILED_GRAPH] * compiled
        return tuple(found)

    candidates = [
        Candidate(BASELINE, "torch", torch.bfloat16, modes(compiled=True, graphed=True)),
        Candidate("torch float32", "torch", torch.float32, modes(compiled=False, graphed=False)),
    ]
    for name, backend in BACKENDS.items():
        if backends is not None and name not in backends:
            continue
        kernels = name.startswith("triton")
        for dtype in _backend_dtypes(name, device):
            candidates.append(
                Candidate(
                    f"{name} {_DTYPES[dtype]}",
                    "backend",
                    dtype,
                    # Only Triton's layers wait for the device nowhere, and know torch.compile.
                    modes(compiled=kernels and graphs, graphed=kernels),
                    missing=backend.missing(device),
                    backend=name,
                )
            )
    for peer in all_peers(compiling=compiling) if peers else ():
        candidates.append(
            Candidate(
                peer.name,
                "peer",
                torch.bfloat16,
                modes(compiled=not peer.compiles_itself, graphed=False),
                missing=peer.missing(device),
                peer=peer,
            )
        )
    return candidates


def _backend_dtypes(name: str, device: torch.device) -> tuple[torch.dtype, ...]:
    """What stands around a backend's layers: what `qrun upscale` would take, and bfloat16."""
    if device.type == "cuda":
        return (torch.bfloat16,)
    if name == "cpu":
        return (torch.float32, torch.bfloat16)
    return (torch.float32,) if name == "reference" else (torch.bfloat16,)


def attempt(make: Callable[[], Made]) -> Made | str:
    """What ``make`` returns, or why it could not."""
    try:
        return make()
    except Exception as error:  # compilers and peers raise whatever they like
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:_SHOWN]}" if lines else type(error).__name__


_SHOWN = 200
"""Characters of an error's first line."""
