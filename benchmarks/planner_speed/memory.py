"""Whole builds of 1, 2 and 4 full-width blocks: does time grow with them, and does memory not?"""

import tempfile
from pathlib import Path

from artifacts.dit4sr.config import TransformerConfig
from benchmarks.full_size_build import build, random_checkpoint
from benchmarks.planner_speed.layers import network_shapes

BLOCKS = (1, 2, 4)


def builds(target: str) -> list[dict[str, float]]:
    """Build networks of so many blocks; needs 1.3 GB of disk.

    Returns:
        For each: its blocks, its layers' weights in millions, and wall seconds, processor seconds
        and peak resident GiB of the command.
    """
    results = []
    for blocks in BLOCKS:
        config = TransformerConfig(num_layers=blocks, dual_attention_layers=tuple(range(blocks)))
        shapes = network_shapes(config)
        weights = sum(s.out_features * s.in_features * count for s, count in shapes.items())
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = random_checkpoint(Path(folder), config)
            took = build(checkpoint, Path(folder) / "a.qpack", target)
        results.append({"blocks": blocks, "million_weights": weights / 1e6, **took})
    return results
