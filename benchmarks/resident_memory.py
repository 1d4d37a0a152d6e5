"""Memory that a network's weights take while it runs, on every backend.

    python -m benchmarks.resident_memory --out docs/results
    python -m benchmarks.resident_memory --out docs/results --modulation table

The published configuration, W4 with ranks 32 and 8, without the layers that no forward pass reads.
Two layers of every shape are made, of random content: what the second adds is what each of that
shape takes, what is left of the first is shared by all. All else in the network counts at two or
four bytes a number. Activations come on top, and text encoders and autoencoder are not counted.

Layers of the CUDA backends hold the same tensors on a CPU, so no GPU is needed. On oneDNN the
backend `cpu` makes part of what it holds in its first pass, so each layer has one. The row `cpu`
needs the compiled kernels, which `qrun doctor` lists.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch

from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.family import Architecture, LinearShape, preset_architecture
from planner.build.inventory import left_to_table
from planner.estimate.stored_bytes import checkpoint_bytes, pack_bytes, table_bytes
from planner.settings import BuildSettings
from planner.target import Target
from runtime.backends import BACKENDS
from runtime.backends.cpu.linear import CpuLinear
from runtime.bench.candidates import QUANTIZER
from runtime.bench.memory import resident_bytes
from runtime.bench.random_layers import random_layer
from runtime.bench.workload import Ranks
from schemas.manifest import QuantizerRecord

WEIGHT_BITS = 4
RANKS = Ranks(32, 8)
NAME = "resident_memory"


ON_ONEDNN = "cpu on oneDNN"
"""The backend `cpu` without compiled kernels."""


@dataclass(frozen=True)
class Way:
    """One way to run the network.

    Attributes:
        name: of the backend; `ON_ONEDNN`; None for plain torch.
        dtype: of everything that is not quantized.
        where: what runs it so.
        runs_here: whether a layer can be called on a CPU.
    """

    name: str | None
    dtype: torch.dtype
    where: str
    runs_here: bool = True

    @property
    def label(self) -> str:
        """As tables have it."""
        return f"{self.name or 'unquantized'} {str(self.dtype).removeprefix('torch.')}"


WAYS = (
    Way(None, torch.float32, "any device"),
    Way(None, torch.bfloat16, "any device"),
    Way("reference", torch.float32, "any CPU"),
    Way("reference", torch.bfloat16, "CUDA"),
    Way("cpu", torch.float32, "x86 CPUs with AVX2"),
    Way(ON_ONEDNN, torch.float32, "CPUs with VNNI"),
    Way(ON_ONEDNN, torch.bfloat16, "CPUs with AMX or bfloat16 products"),
    Way("triton", torch.bfloat16, "CUDA", runs_here=False),
    Way("triton-packed", torch.bfloat16, "CUDA", runs_here=False),
)


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="dit4sr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--modulation", choices=("weights", "table"), default="weights")
    arguments = parser.parse_args()
    result = measure(preset_architecture(arguments.preset, None), arguments.modulation)
    name = NAME if arguments.modulation == "weights" else f"{NAME}_{arguments.modulation}"
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    page = render(result)
    (arguments.out / f"{name}.md").write_text(page)
    print(page)


@dataclass(frozen=True)
class Held:
    """What a network holds.

    Attributes:
        linears: its block linears, with their biases.
        other_numbers: all others, but for what can be rebuilt.
    """

    linears: Mapping[str, LinearShape]
    other_numbers: int


def held(architecture: Architecture, names: Collection[str]) -> Held:
    """What a network of the tensors ``names`` holds."""
    shapes = architecture.tensor_shapes
    linears = {
        name: shape for name, shape in architecture.quantizable.items() if f"{name}.weight" in names
    }
    inside = {f"{name}.{part}" for name in linears for part in ("weight", "bias")}
    return Held(linears, sum(prod(shapes[name]) for name in set(names) - inside))


def measure(
    architecture: Architecture, modulation: Literal["weights", "table"] = "weights"
) -> dict[str, Any]:
    """Bytes of every way, and of the files, with what is stored of modulations."""
    settings = BuildSettings(Target(WEIGHT_BITS, 4), modulation=modulation)
    tabled = left_to_table(architecture, settings)
    steps = architecture.sampling.steps
    table = table_bytes(architecture, steps) if settings.makes_table else 0
    active = frozenset(architecture.parameter_shapes) - architecture.unread_tensors
    whole, stored = (
        held(architecture, active - left_out) for left_out in (frozenset(), tabled.tensors)
    )
    bits = dict.fromkeys(stored.linears, WEIGHT_BITS)
    checkpoint = checkpoint_bytes(architecture)
    ways = {}
    for way in WAYS:
        quantized = way.name is not None  # an unquantized network has no table
        parts = stored if quantized else whole
        layers = layers_bytes(way, Counter(parts.linears.values()))
        others = parts.other_numbers * way.dtype.itemsize
        if not quantized:  # holds the position table that its checkpoint has, as it is stored
            others += checkpoint.position_table
        ways[way.label] = {
            "layers_bytes": layers,
            "other_bytes": others,
            "total_bytes": layers + others + (table if quantized else 0),
            "where": way.where,
        }
    return {
        "network": architecture.family.describe(architecture.config),
        "layers": len(stored.linears),
        "table_bytes": table,
        "steps": steps,
        "weight_bits": WEIGHT_BITS,
        "ranks": [RANKS.global_rank, RANKS.local_rank],
        "disk": {
            "checkpoint_bytes": checkpoint.parameters + checkpoint.position_table,
            "pack_bytes": pack_bytes(architecture, bits, active, settings, steps).total,
        },
        "ways": ways,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }


def layers_bytes(way: Way, shapes: Mapping[LinearShape, int]) -> int:
    """Bytes of so many layers of every shape."""
    total = 0
    for shape, count in shapes.items():
        make = _maker(way, shape)
        first, second = make(), make()
        one = resident_bytes([first])
        each = resident_bytes([first, second]) - one
        total += one + (count - 1) * each
    return total


def _maker(way: Way, shape: LinearShape) -> Callable[[], torch.nn.Module]:
    if way.name is None:
        return lambda: torch.nn.Linear(shape.in_features, shape.out_features, dtype=way.dtype)
    make_layer = _onednn_layer if way.name == ON_ONEDNN else BACKENDS[way.name].make_layer
    generator = torch.Generator().manual_seed(0)

    def make() -> torch.nn.Module:
        record = random_layer(
            "layer", *shape, weight_bits=WEIGHT_BITS, ranks=RANKS, generator=generator
        )
        layer = make_layer(record, QUANTIZER)
        if way.runs_here:
            layer(torch.ones(1, shape.in_features, dtype=way.dtype), 4)
        return layer

    return make


def _onednn_layer(weight: QuantizedWeight, quantizer: QuantizerRecord) -> torch.nn.Module:
    return CpuLinear(weight, quantizer.activation_scale)


def render(result: Mapping[str, Any]) -> str:
    """The page."""
    disk, ways = result["disk"], result["ways"]
    baseline = ways["unquantized bfloat16"]["total_bytes"]
    table = result["table_bytes"]
    rows = [
        f"| {label} | {way['where']} | {way['total_bytes'] / 1e9:.2f} GB"
        f" | {way['total_bytes'] / baseline:.2f} |"
        for label, way in ways.items()
    ]
    return "\n".join(
        [
            "# Memory of a running network",
            "",
            f"{result['network']}, the {result['layers']} layers that a forward pass reads, W4 with"
            " ranks",
            f"{result['ranks'][0]} and {result['ranks'][1]}: all weights, scales and factors, as"
            " each backend holds them; without",
            "activations, autoencoder and text encoders. Positions are computed from one axis of"
            " sines and cosines, 1 MB;",
            "the unquantized network holds its checkpoint's table of them, in 16 bits. Random"
            " weights in the exact shapes.",
            *_table_lines(table, result["steps"]),
            "Command: `python -m benchmarks.resident_memory --out docs/results"
            f"{' --modulation table' if table else ''}`.",
            "",
            "| backend | runs on | weights in memory | of unquantized bfloat16 |",
            "|---|---|---|---|",
            *rows,
            "",
            f"On disk the pack has {disk['pack_bytes'] / 1e9:.2f} GB,"
            f" {disk['pack_bytes'] / disk['checkpoint_bytes']:.2f} of the bfloat16 checkpoint's"
            f" {disk['checkpoint_bytes'] / 1e9:.2f} GB.",
            "Four-bit codes lie there two in a byte. `triton-packed` and `cpu` on its compiled"
            " kernels keep them so;",
            "all others unpack them at load to one byte each, which their products read.",
            "",
        ]
    )


def _table_lines(table: int, steps: int) -> list[str]:
    if not table:
        return []
    return [
        f"Modulations are a table of 2 prompts at {steps} steps, {table / 1e6:.0f} MB; their layers"
        " are not loaded."
    ]


if __name__ == "__main__":
    main()
