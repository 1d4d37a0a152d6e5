"""What an estimate makes of layers whose results a table may replace: bits, sizes, choices."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod
from typing import get_args

from artifacts.family import Architecture
from planner.allocate.table_share import TableShare
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import uniform_bits, weight_bits
from planner.build.inventory import left_to_table
from planner.build.table_budget import table_share
from planner.estimate.accounting import FULL_PRECISION_BITS, NetworkSize, network_size
from planner.estimate.stored_bytes import PROMPTS, pack_bytes, table_bytes
from planner.settings import BuildSettings, Modulation


def without_larger_table(
    settings: BuildSettings, architecture: Architecture, steps: int
) -> BuildSettings:
    """The settings that a build takes where nobody chose the table: none that outgrows the layers.

    Args:
        settings: of a recipe.
        architecture: the network.
        steps: of the table.
    """
    share = share_of_table(architecture, settings, steps)
    if not share.weights or share.pays(settings.target.weight_bits):
        return settings
    return replace(settings, modulation="weights")


def share_of_table(architecture: Architecture, settings: BuildSettings, steps: int) -> TableShare:
    """Of a table of both prompts at so many steps; more than the build's where they share one."""
    rows = PROMPTS * steps if settings.modulation == "table" else 0
    return table_share(architecture, settings, rows)


def predicted_bits(
    statistics: Sequence[LayerStatistics], settings: BuildSettings, table: TableShare
) -> dict[str, int]:
    """Weight bits of every layer; without a probe, where a build would go by one."""
    if settings.weight_allocation == "uniform":
        return uniform_bits((layer.name for layer in statistics), settings)
    if settings.weight_allocation == "sensitivity":
        # Nothing tells layers apart; VaSMP with the same budget stands in.
        asked = settings.target.weight_bits
        mean = table.mean_of_rest(asked, sum(layer.parameters for layer in statistics))
        target = replace(settings.target, weight_bits=min(mean, settings.maximum_bits))
        settings = replace(settings, weight_allocation="vasmp", target=target)
    return weight_bits(statistics, settings)


def own_size(
    architecture: Architecture, settings: BuildSettings, kept: Collection[str], steps: int
) -> NetworkSize:
    """Parameters with those of a table of modulations, in 16 bits, for those that it replaces."""
    tabled = left_to_table(architecture, settings)
    size = network_size(architecture, {*kept, *tabled.layers})
    absent = sum(prod(architecture.tensor_shapes[name]) for name in tabled.tensors)
    stored = table_bytes(architecture, steps) if settings.makes_table else 0
    in_fp32 = stored // (FULL_PRECISION_BITS // 8)
    return replace(size, parameters=size.parameters - absent + in_fp32)


def modulation_choices(
    architecture: Architecture,
    active_tensors: Collection[str],
    settings: BuildSettings,
    kept: Collection[str],
    steps: int,
) -> dict[str, int]:
    """Bytes of a pack by what is stored of modulations; without a table that is no smaller."""
    found = {}
    for choice in get_args(Modulation) if architecture.modulations.layers else ():
        changed = replace(settings, modulation=choice)
        share = share_of_table(architecture, changed, steps)
        if choice == "table" and not share.pays(settings.target.weight_bits):
            continue
        absent = {*kept, *left_to_table(architecture, changed).layers}
        quantized = [
            LayerStatistics(name, shape.out_features * shape.in_features, 1.0)
            for name, shape in architecture.quantizable.items()
            if f"{name}.weight" in active_tensors and name not in absent
        ]
        bits = predicted_bits(quantized, changed, share)
        sizes = pack_bytes(architecture, bits, active_tensors, changed, steps)
        found[choice] = sizes.total
    return found
