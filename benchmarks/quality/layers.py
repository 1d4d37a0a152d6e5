"""Layer by layer: where a row's error comes from.

The unquantized network runs on calibration images; whatever one of its layers is fed is given to
the quantized layer of every row too, and the outputs are compared. No error is carried from layer
to layer this way, so a number says what that layer does on its own, on real inputs. All numbers are
signal-to-noise ratios in dB; noise and signal are summed over tokens, steps and images first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from benchmarks.quality.intervals import EXACT_DB
from benchmarks.quality.kinds import KINDS, kind_of
from benchmarks.quality.measure import Bench
from benchmarks.quality.packs import PackMaker, Quantized
from benchmarks.quality.rows import Row
from planner.build.network_probe import active_linears
from runtime.backends.reference import ReferenceLinear
from runtime.images.image_io import read_image
from runtime.images.resizing import SCALE
from runtime.upscale import encode_image, sample_latent
from schemas.bit_widths import UNQUANTIZED
from schemas.json_io import format_json

IMAGES = 4
SEED = 77
PARTS = ("weight", "input", "output", "output_weights", "output_activations")
"""What is compared: the decoded weight; the quantized input; the output; the output if only the
weights were quantized; what quantizing the activations adds to that."""


@dataclass
class Sums:
    """Squared norms of one layer in one row."""

    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, signal: Tensor, noise: Tensor) -> None:
        """Add one call."""
        self.signal[part] = self.signal.get(part, 0.0) + _power(signal)
        self.noise[part] = self.noise.get(part, 0.0) + _power(noise)

    def share(self, part: str) -> float:
        """Noise over signal."""
        return self.noise[part] / self.signal[part]


@dataclass
class Evidence:
    """What a run found.

    Attributes:
        rows: full name of a row -> layer -> part -> dB; ``input`` is missing at 16 bits.
        kinds: the same by kind of layer, from the mean of the noise-to-signal ratios.
        mean_squares: layer -> mean square of its input in the unquantized network, per step.
        timesteps: of the steps.
    """

    rows: dict[str, dict[str, dict[str, float]]]
    kinds: dict[str, dict[str, dict[str, float]]]
    mean_squares: dict[str, list[float]]
    timesteps: list[float]


def gather(bench: Bench, maker: PackMaker, rows: Sequence[Row], images: int = IMAGES) -> Evidence:
    """Run the unquantized network on calibration images and compare all layers of ``rows``."""
    networks = {}
    for row in rows:
        with maker.pack(row) as pack:
            networks[row.full_name] = maker.load(pack)
    sums: dict[str, dict[str, Sums]] = {name: {} for name in networks}
    watch = _Watch(bench, networks, sums)
    pipeline = replace(bench.pipeline, bits_at=watch.step)
    side = bench.sampling.crop_px // SCALE
    with watch:
        for index, path in enumerate(sorted(maker.images.glob("*.png"))[:images]):
            control = encode_image(
                pipeline, read_image(path).rgb[..., :side, :side], bench.settings
            ).control
            sample_latent(pipeline, control, replace(bench.settings, seed=SEED + index))
    for name, quantized in networks.items():
        for layer, record in quantized.pack.manifest.layers.items():
            if layer in sums[name] and record.error_db is not None:
                share = 10 ** (-record.error_db / 10)
                sums[name][layer].signal["weight"] = 1.0
                sums[name][layer].noise["weight"] = share
    return Evidence(
        rows={name: {n: _in_db(s) for n, s in layers.items()} for name, layers in sums.items()},
        kinds={name: _by_kind(layers) for name, layers in sums.items()},
        mean_squares=watch.mean_squares(),
        timesteps=sorted(watch.timesteps, reverse=True),
    )


class _Watch:
    """Hooks on every block linear of the unquantized network; a context manager."""

    def __init__(
        self,
        bench: Bench,
        networks: Mapping[str, Quantized],
        sums: dict[str, dict[str, Sums]],
    ) -> None:
        self.network = bench.pipeline.network
        self.networks = networks
        self.sums = sums
        self.timesteps: list[float] = []
        self.now = 0.0
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._squares: dict[tuple[str, float], list[float]] = {}

    def __enter__(self) -> "_Watch":
        for name in active_linears(Architecture(FAMILY, self.network.config, self.network.variant)):
            layer = self.network.get_submodule(name)
            self._hooks.append(
                layer.register_forward_hook(
                    lambda module, arguments, output, name=name: self._compare(
                        name, module, arguments[0], output
                    )
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def step(self, timestep: float) -> None:
        """Stands in for a bit grid: notes the step, quantizes nothing."""
        self.now = timestep
        if timestep not in self.timesteps:
            self.timesteps.append(timestep)

    def mean_squares(self) -> dict[str, list[float]]:
        """Layer -> mean square of its input at every step, from the first."""
        steps = sorted(self.timesteps, reverse=True)
        layers = dict.fromkeys(name for name, _ in self._squares)
        return {
            name: [self._squares[name, t][0] / self._squares[name, t][1] for t in steps]
            for name in layers
        }

    def _compare(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        total = self._squares.setdefault((name, self.now), [0.0, 0.0])
        total[0] += _power(x)
        total[1] += x.numel()
        clean = output - module.bias
        for row, quantized in self.networks.items():
            layer = quantized.network.get_submodule(name)
            if not isinstance(layer, ReferenceLinear):  # kept in 16 bits
                continue
            sums = self.sums[row].setdefault(name, Sums())
            bits = quantized.bits_at(self.now)[name]
            weights_only = layer(x, UNQUANTIZED)
            both = weights_only if bits == UNQUANTIZED else layer(x, bits)
            sums.add("output", clean, both - output)
            sums.add("output_weights", clean, weights_only - output)
            if bits != UNQUANTIZED:
                sums.add("output_activations", clean, both - weights_only)
                z = x.flatten(0, -2)
                z = layer.rotation.apply(
                    z if layer.smoothing is None else z / layer.smoothing, layer.signs
                )
                codes, scale = quantize_rows(z, bits, layer.activation_scale)
                sums.add("input", z, dequantize_rows(codes, scale, bits) - z)


def to_markdown(evidence: Evidence, labels: Mapping[str, str], command: str) -> str:
    """One table per part: kinds of layers down, rows across."""
    titles = {
        "output": "Output of the layer",
        "output_weights": "Output, weights quantized alone",
        "output_activations": "What quantizing the activations adds to the output",
        "input": "Quantized input",
        "weight": "Decoded weight",
    }
    lines = [
        "# Recipes compared layer by layer",
        "",
        "```",
        command,
        "```",
        "",
        "Signal-to-noise ratios in dB. Every quantized layer gets the inputs that the same layer of"
        f" the unquantized network gets on {IMAGES} calibration images, at every step; errors are"
        " not carried from layer to layer. A kind's number comes from the mean noise-to-signal"
        " ratio of its layers.",
        "",
    ]
    names = list(evidence.kinds)
    for part, title in titles.items():
        if not any(part in k for name in names for k in evidence.kinds[name].values()):
            continue
        lines += [f"## {title}", ""]
        lines.append("| kind | " + " | ".join(f"{labels[n]} ({n})" for n in names) + " |")
        lines.append("|" + "---|" * (len(names) + 1))
        for kind in KINDS:
            cells = [evidence.kinds[name].get(kind, {}).get(part) for name in names]
            shown = " | ".join("" if c is None else f"{c:.2f}" for c in cells)
            lines.append(f"| {kind} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def to_json(evidence: Evidence) -> dict[str, Any]:
    """Everything as JSON values; a layer's are in the order of ``parts``."""
    return {
        "by_kind": evidence.kinds,
        "parts": list(PARTS),
        "by_layer": {
            row: {name: [parts.get(part) for part in PARTS] for name, parts in layers.items()}
            for row, layers in evidence.rows.items()
        },
        "input_mean_squares": {
            name: [float(f"{v:.5g}") for v in values]
            for name, values in evidence.mean_squares.items()
        },
        "timesteps": evidence.timesteps,
    }


def write(evidence: Evidence, labels: Mapping[str, str], command: str, out: Path) -> None:
    """Write ``quality_layers.json`` and ``quality_layers.md``."""
    (out / "quality_layers.json").write_text(format_json(to_json(evidence)))
    (out / "quality_layers.md").write_text(to_markdown(evidence, labels, command))


def _power(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2


def _db(share: float) -> float:
    return round(min(-10 * math.log10(share), EXACT_DB), 2) if share > 0 else EXACT_DB


def _in_db(sums: Sums) -> dict[str, float]:
    return {part: _db(sums.share(part)) for part in PARTS if part in sums.signal}


def _by_kind(layers: Mapping[str, Sums]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        members = [sums for name, sums in layers.items() if kind_of(name) == kind]
        for part in PARTS:
            shares = [sums.share(part) for sums in members if part in sums.signal]
            if shares:
                found.setdefault(kind, {})[part] = _db(sum(shares) / len(shares))
    return found
