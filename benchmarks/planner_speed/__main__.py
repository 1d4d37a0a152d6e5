"""What building a pack costs, by stage and kind of layer, beside SDNQ over the same weights.

    python -m benchmarks.planner_speed --quick
    python -m benchmarks.planner_speed --memory --accuracy --json docs/results/planner_speed.json

Layers of random numbers in DiT4SR's shapes go through the planner's two passes, measuring and
quantizing, and, where SDNQ is installed, through its int4 with SVD of rank 32 and Hadamard: layer
by layer in turns, in one process, with one thread, under one allocator. Random numbers have the
flattest spectrum there is, which costs the planner's factors the most time. Files are not read or
written.

Processor time, so that a busy machine disturbs little; what others do to the caches remains.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.planner_speed.accuracy import SHAPES, accuracy, structured
from benchmarks.planner_speed.layers import Sample, sampled
from benchmarks.planner_speed.memory import builds
from benchmarks.planner_speed.peer import SETTINGS, time_peer
from benchmarks.planner_speed.report import network_cost, table
from benchmarks.planner_speed.stages import Stopwatch, time_planner
from benchmarks.quality.peer import is_available, sdnq_version
from planner.cli.allocator import keep_freed_memory
from planner.recipes import RECIPES, recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.effort import EFFORTS
from runtime.bench.machine import machine_facts

BITS = 4
QUICK, USUAL = 1, 3
"""Layers of each shape."""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("--quick", action="store_true", help="one layer of each shape")
    how_many.add_argument("--all", action="store_true", help="every layer, 2.2 billion weights")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="q-dit4sr")
    parser.add_argument("--effort", choices=list(EFFORTS), default="normal")
    parser.add_argument("--no-peer", action="store_true", help="leave SDNQ out")
    parser.add_argument(
        "--plain-allocator", action="store_true", help="give freed memory back, as Python does"
    )
    parser.add_argument("--memory", action="store_true", help="also build 1, 2 and 4 blocks")
    parser.add_argument("--accuracy", action="store_true", help="also compare with exact factors")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()

    result: dict[str, Any] = {"machine": machine_facts(torch.device("cpu"))}
    if arguments.memory:  # first, while this process is small
        result["builds"] = builds(f"W{BITS}A4")
    if not arguments.plain_allocator:
        keep_freed_memory()
    torch.set_num_threads(1)
    settings = recipe_settings(
        arguments.recipe, parse_target(f"W{BITS}A4"), effort=arguments.effort
    )
    with_peer = is_available() and not arguments.no_peer
    samples = sampled(None if arguments.all else QUICK if arguments.quick else USUAL)
    with torch.inference_mode():
        shapes = [_time(sample, settings, with_peer=with_peer) for sample in samples]
        if arguments.accuracy:
            result["accuracy"] = accuracy(settings, _weights())
    result |= {
        "recipe": arguments.recipe,
        "effort": arguments.effort,
        "allocator": "plain" if arguments.plain_allocator else "keeps freed memory",
        "peer": {"sdnq": sdnq_version(), "settings": SETTINGS} if with_peer else None,
        "unit": "processor milliseconds per million weights",
        "shapes": shapes,
        **network_cost(shapes),
    }
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _time(sample: Sample, settings: BuildSettings, *, with_peer: bool) -> dict[str, Any]:
    """Cost of the layers of one shape: of both passes together, by stage, and of the peer."""
    watch, peer_seconds = Stopwatch(), 0.0
    warm = sample.weight(-1)  # whose first call pays for what is loaded and made once
    time_planner(warm, BITS, settings, Stopwatch())
    if with_peer:
        time_peer(warm)
    for index in range(sample.timed):
        weight = sample.weight(index)
        time_planner(weight, BITS, settings, watch)
        if with_peer:
            peer_seconds += time_peer(weight)
    per_million = 1e9 / (sample.timed * sample.weights)
    stages = {stage: seconds * per_million for stage, seconds in watch.seconds.items()}
    return {
        "shape": list(sample.shape),
        "layers": sample.count,
        "timed": sample.timed,
        "million_weights": sample.millions,
        "planner": stages["measure"] + stages["whole layer"],
        "stages": stages,
        "peer": peer_seconds * per_million if with_peer else None,
    }


def _weights() -> dict[str, torch.Tensor]:
    """What accuracy is measured on."""
    found = {}
    for rows, columns in SHAPES:
        generator = torch.Generator().manual_seed(0)
        plain = (torch.randn(rows, columns, generator=generator) * 0.02).bfloat16()
        found[f"random {rows}×{columns}"] = plain
        found[f"structured {rows}×{columns}"] = structured(plain)
    return found


if __name__ == "__main__":
    main()
