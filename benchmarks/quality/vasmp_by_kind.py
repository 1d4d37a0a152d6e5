"""What VaSMP does when one kind of layer keeps the target's bits.

    python -m benchmarks.quality.vasmp_by_kind
    python -m benchmarks.quality.vasmp_by_kind --recipe q-dit4sr-no-hsvd
    python -m benchmarks.quality.vasmp_by_kind --recipe q-dit4sr-residual

W4A4 packs of one recipe, with the same activation bits at every timestep. In each, the layers of
one kind are held at 4 weight bits and VaSMP shares the same mean among all others, so every pack
stores as much as the next. Prints for every kind: its mean bits where VaSMP decides freely, the
distortion that VaSMP minimises as a share of that with equal bits, and the final latent's error
against the unquantized network from the same noise, in dB. A kind whose holding raises the last
number is one that VaSMP judges wrongly.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import torch

from artifacts.pack import open_pack
from benchmarks.quality.kinds import KINDS, kind_of
from benchmarks.quality.measure import Bench, Sampling, make_bench
from benchmarks.quality.measure import measure as measure_latents
from benchmarks.quality.packs import PackMaker
from planner import build as planner_build
from planner.build import measure, weight_bits
from planner.inventory import take_inventory
from planner.recipes import recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.vasmp import LayerStatistics, predicted_distortion

MODEL = Path("artifacts/demo/dit4sr-mini")
TARGET = parse_target("W4A4")
RANKS = {"global_rank": 4, "local_rank": 2}


def held(
    statistics: list[LayerStatistics], settings: BuildSettings, kinds: tuple[str, ...]
) -> dict[str, int]:
    """Weight bits by layer: the target's for ``kinds``, VaSMP's at the same mean for the rest."""
    free = [layer for layer in statistics if kind_of(layer.name) not in kinds]
    bits = {layer.name: int(TARGET.weight_bits) for layer in statistics}
    return bits | (weight_bits(free, settings) if free else {})


def latent_error_db(
    bench: Bench, maker: PackMaker, settings: BuildSettings, bits: Mapping[str, int]
) -> float:
    """Mean over crops and noises of the final latent's error, of a pack with these weight bits."""
    output = maker.work / "vasmp-by-kind.qpack"
    try:
        with mock.patch.object(planner_build, "weight_bits", return_value=dict(bits)):
            planner_build.build(maker.checkpoint, output, settings, maker.base, force=True)
        quantized = maker.load(open_pack(output))
    finally:
        shutil.rmtree(output, ignore_errors=True)
    values = measure_latents(
        bench, quantized.network, quantized.bits_at, lambda _done, _total: None
    )
    per_case = [sum(row) / len(row) for row in values["latent_db"]]
    return sum(per_case) / len(per_case)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="q-dit4sr")
    parser.add_argument("--work", type=Path, default=Path("out/quality"))
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    sampling = Sampling(MODEL, arguments.crops, 128, arguments.seeds, arguments.steps, 1.0, False)
    bench = make_bench(sampling, arguments.work, lambda _done, _total: None)
    maker = PackMaker(MODEL, arguments.work, steps=sampling.steps, guidance=1.0)
    ranks = {} if arguments.recipe == "q-dit4sr-no-hsvd" else RANKS
    settings = recipe_settings(arguments.recipe, TARGET, **ranks, timestep_allocation="uniform")
    statistics = measure(maker.checkpoint, take_inventory(maker.checkpoint, settings), settings)
    equal = predicted_distortion(statistics, held(statistics, settings, KINDS))
    free_bits = held(statistics, settings, ())

    print(f"recipe {arguments.recipe}", flush=True)
    print(f"{'held at 4 bits':24} {'VaSMP gives':>11} {'distortion':>10} {'latent error, dB':>17}")
    for name, kinds in [("none", ()), ("all", KINDS), *((kind, (kind,)) for kind in KINDS)]:
        of_kind = [layer for layer in statistics if kind_of(layer.name) in kinds]
        bits = held(statistics, settings, kinds)
        weight = sum(layer.parameters for layer in of_kind)
        mean = sum(layer.parameters * free_bits[layer.name] for layer in of_kind)
        given = f"{mean / weight:11.2f}" if weight else f"{'':11}"
        distortion = predicted_distortion(statistics, bits) / equal
        error = latent_error_db(bench, maker, settings, bits)
        print(f"{name:24} {given} {distortion:10.3f} {error:17.2f}", flush=True)


if __name__ == "__main__":
    main()
