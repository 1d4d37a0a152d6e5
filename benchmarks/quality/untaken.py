"""What codebooks and a removed subspace would win, simulated: `standard` goes without them.

    python -m benchmarks.quality.untaken --draws 4
    python -m benchmarks.quality.untaken --draws 4 --model benchmarks/networks/dit4sr-narrow

On packs at W4A4 of the paper's recipe without images (ranks 4 and 2) and of `standard` (8 and 4),
each as it is and with

- **codebook, weights**: up to 4 bits, levels that are best for a normal distribution (Lloyd and
  Max) instead of equally spaced ones, rounded to 8-bit integers, so that a kernel could look them
  up and multiply them. GPTQ, where the recipe has it, rounds to them.
- **codebook, tokens**: the same levels for activations of up to 4 bits.
- **subspace removed**: activations lose their part within the row space of the layer's own global
  factors before they are quantized, and the residual meets that part unquantized. A kernel would
  share one subspace among layers of an input, round it, and store it or do with less; here it costs
  nothing, so that no implementation can win more.

Prints the final latent's error against the unquantized network, dB, mean over crops, for every draw
of random signs. All but the weights' codebook run on one and the same pack, so pairs differ in
nothing else.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import gaussian_level, row_scales
from artifacts.pack.reader import Pack
from benchmarks.quality.intervals import per_image
from benchmarks.quality.measure import measure
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import SmallRun, start
from planner.settings import BuildSettings
from planner.weights import layer as planner_layer
from planner.weights.moment_root import MomentRoot
from planner.weights.row_scales import QuantizedRows, quantize_weight_rows
from runtime.backends.reference import ReferenceLinear
from runtime.network.projection import PreparedInput
from runtime.sampling.bit_schedule import BitSchedule
from schemas.bit_widths import UNQUANTIZED

MOST_BITS = 4
"""Above it 8-bit integers do not hold levels that are close enough together."""
RECIPES = {
    "the paper's": ("q-dit4sr-no-vatmp", {"global_rank": 4, "local_rank": 2}),
    # Factors cannot be fitted here to what the codebook leaves: only the rounding knows of it.
    "standard": ("standard", {"global_rank": 8, "local_rank": 4, "factor_fit": "weight"}),
}


@lru_cache(maxsize=4)
def codebook(bits: int) -> Tensor:
    """Levels float32 [2^b], ascending, in steps of the uniform quantizer of a normal value.

    Lloyd's iteration on N(0, 1): a level is the mean of its cell, a border lies midway between two
    levels. The result is rounded to multiples of 1/127 of its largest.
    """
    normal = torch.distributions.Normal(0.0, 1.0)
    levels = torch.linspace(-2, 2, 2**bits, dtype=torch.float64)
    for _ in range(2000):
        borders = (levels[1:] + levels[:-1]) / 2
        edges = torch.cat([borders.new_tensor([-30.0]), borders, borders.new_tensor([30.0])])
        density = normal.log_prob(edges).exp()
        share = normal.cdf(edges).diff()
        levels = -density.diff() / share
    largest = levels.abs().max()
    whole = (levels / largest * 127).round()
    return (whole * largest / 127 / gaussian_level(bits).step).float()


def nearest(values: Tensor, bits: int) -> Tensor:
    """Codes int64 of ``values``, which are in steps: of the nearest level of the codebook."""
    levels = codebook(bits)
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)


def round_to_codebook(
    residual: Tensor, bits: int, settings: BuildSettings, root: MomentRoot | None
) -> QuantizedRows:
    """As the planner rounds a residual, to the nearest level or by GPTQ, but to the codebook."""
    found = quantize_weight_rows(residual, bits, settings.weight_scale)
    divisor = torch.where(found.scale > 0, found.scale, torch.inf)
    left = residual.clone()
    codes = torch.empty_like(found.codes)
    levels = codebook(bits)
    for i in range(residual.shape[1]):
        code = nearest(left[:, i] / divisor, bits)
        codes[:, i] = code
        if root is not None and settings.rounds_by_moments:
            upper = root.upper
            error = (left[:, i] - levels[code] * found.scale) / upper[i, i]
            left[:, i + 1 :].addr_(error, upper[i, i + 1 :], alpha=-1)
    decoded = levels[codes.long()] * found.scale[:, None]
    return QuantizedRows(codes, found.scale, (decoded - residual).double().square().sum(1))


@contextmanager
def weights_by_codebook() -> Iterator[None]:
    """Builds inside it round weights of few bits to the codebook."""
    own = planner_layer._rounded

    def rounded(
        residual: Tensor, bits: int, settings: BuildSettings, root: MomentRoot | None
    ) -> QuantizedRows:
        chosen = round_to_codebook if bits <= MOST_BITS else own
        return chosen(residual, bits, settings, root)

    with mock.patch.object(planner_layer, "_rounded", rounded):
        yield


class SimulatedLinear(ReferenceLinear):
    """The reference's layer with what the class variables switch on."""

    weight_codebook = False
    token_codebook = False
    without_subspace = False

    def residual_product(self, prepared: PreparedInput) -> Tensor:
        """The residual's part of the result, float32 [tokens, out_features]."""
        z = prepared.values.flatten(0, -2)
        weight = self._weight()
        if prepared.bits == UNQUANTIZED:
            return z @ weight.T
        kept = torch.zeros_like(z)
        if self.without_subspace and self.global_down is not None:
            basis = torch.linalg.qr(self.global_down.to(z).T).Q  # [in_features, r]
            kept = z @ basis @ basis.T
        return (self._quantized(z - kept, prepared.bits) + kept) @ weight.T

    def _weight(self) -> Tensor:
        """The residual float32 [out, in]."""
        if self.weight_codebook and self.weight_bits <= MOST_BITS:
            return codebook(self.weight_bits)[self.codes.long()] * self.scale[:, None]
        return (self.codes.float() - (2**self.weight_bits - 1) / 2) * self.scale[:, None]

    def _quantized(self, z: Tensor, bits: int) -> Tensor:
        """Tokens [tokens, in_features] as they decode."""
        scale = row_scales(z, bits, self.activation_scale, self.token_step)
        steps = z / torch.where(scale > 0, scale, torch.inf)[:, None]
        if self.token_codebook and bits <= MOST_BITS:
            return codebook(bits)[nearest(steps, bits)] * scale[:, None]
        codes = (steps + 2 ** (bits - 1)).floor().clamp(0, 2**bits - 1)
        return (codes - (2**bits - 1) / 2) * scale[:, None]


def measured_db(run: SmallRun, maker: PackMaker, pack: Pack, **switches: bool) -> float:
    """Error of the final latent of one pack, mean over crops and noises."""
    network = maker.load(pack).network
    variant = type("Variant", (SimulatedLinear,), switches)
    for module in network.modules():
        if isinstance(module, ReferenceLinear):
            module.__class__ = variant
    values = measure(run.bench, network, BitSchedule(pack.bit_grid), lambda *_: None)["latent_db"]
    return float(per_image(values).mean())


def main() -> None:
    """Measure and print."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--draws", type=int, default=1, help="of random signs")
        parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))

    run = start(__doc__, crops=8, more=more)
    for name in run.arguments.recipes:
        recipe, ranks = RECIPES[name]
        for seed in range(run.arguments.draws):
            row = Row(
                "W4A4",
                f"untaken-{seed}",
                name,
                name,
                recipe=recipe,
                overrides=ranks | {"seed": seed},
            )
            found = {}
            with run.maker.pack(row) as pack:
                found["as it is"] = measured_db(run, run.maker, pack)
                found["codebook, tokens"] = measured_db(run, run.maker, pack, token_codebook=True)
                found["subspace removed"] = measured_db(run, run.maker, pack, without_subspace=True)
            with weights_by_codebook(), run.maker.pack(row) as pack:
                found["codebook, weights"] = measured_db(run, run.maker, pack, weight_codebook=True)
            parts = ", ".join(f"{label} {value:.2f}" for label, value in found.items())
            print(f"{name}, draw {seed}: {parts}", flush=True)


if __name__ == "__main__":
    main()
