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

import shutil
from collections.abc import Mapping
from unittest import mock

import torch

from artifacts.pack.reader import open_pack
from benchmarks.quality.kinds import KINDS, kind_of
from benchmarks.quality.measure import Bench
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.small_run import latent_error_db, start
from planner.allocate.vasmp import LayerStatistics, predicted_distortion
from planner.allocate.weight_bits import weight_bits
from planner.build import build as planner_build
from planner.build.build import measure
from planner.build.inventory import take_inventory
from planner.recipes import recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target

TARGET = parse_target("W4A4")
RANKS = {"global_rank": 4, "local_rank": 2}


def held(
    statistics: list[LayerStatistics], settings: BuildSettings, kinds: tuple[str, ...]
) -> dict[str, int]:
    """Weight bits by layer: the target's for ``kinds``, VaSMP's at the same mean for the rest."""
    free = [layer for layer in statistics if kind_of(layer.name) not in kinds]
    bits = {layer.name: int(TARGET.weight_bits) for layer in statistics}
    return bits | (weight_bits(free, settings) if free else {})


def pack_error_db(
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
    return latent_error_db(bench, quantized.network, quantized.bits_at)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    arguments, bench, maker = start(
        __doc__,
        crops=16,
        more=lambda parser: parser.add_argument("--recipe", default="q-dit4sr"),
    )
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
        error = pack_error_db(bench, maker, settings, bits)
        print(f"{name:24} {given} {distortion:10.3f} {error:17.2f}", flush=True)


if __name__ == "__main__":
    main()
