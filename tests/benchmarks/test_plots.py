"""Plots are drawn from made-up results, offline, and stay small."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from benchmarks.quality import plots
from benchmarks.quality.kinds import KINDS
from benchmarks.quality.report import analyse
from benchmarks.quality.rows import MAIN_TARGETS, plan
from planner.allocate.vasmp import LayerStatistics
from runtime.bench.workload import Ranks

LAYERS = {
    "modulation": "norm1.linear",
    "q k v": "attn.to_q",
    "feed-forward out": "ff.net.2",
}
NAMES = [f"transformer_blocks.{block}.{part}" for block in range(3) for part in LAYERS.values()]


def check(folder, result):
    name, caption = result
    assert caption
    path = folder / name
    assert path.stat().st_size < 150_000
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 100
    # Something was drawn: a chart without data is almost one colour.
    assert (pixels < 128).mean() > 0.005
    return pixels


def test_errors_and_storage_of_all_rows(tmp_path):
    rng = np.random.default_rng(0)
    rows = plan(MAIN_TARGETS, Ranks(4, 2), Ranks(32, 8))
    contents = {
        row.full_name: {
            "values": {"latent_db": (rng.normal(20, 3, 1) + rng.normal(0, 1, (18, 3))).tolist()},
            "stored_bits": float(rng.uniform(3, 8)),
        }
        for row in rows
    }
    measured = analyse(rows, contents, {})
    check(tmp_path, plots.error_by_recipe(measured, MAIN_TARGETS, tmp_path))
    check(tmp_path, plots.pareto(measured, tmp_path))


def test_bit_grid_shows_bits_by_lightness(tmp_path):
    def drawn(bits):
        layers = {name: {"weight_bits": bits, "activation_bits": [bits] * 10} for name in NAMES}
        return check(tmp_path, plots.bit_grid(layers, "W4A4", tmp_path))

    few, many = drawn(2), drawn(8)
    assert few.shape == many.shape
    changed = few != many
    assert few[changed].mean() > many[changed].mean() + 50  # more bits are darker


def test_variances_by_kind(tmp_path):
    squares = {name: [float(i + step) for step in range(1, 11)] for i, name in enumerate(NAMES)}
    check(tmp_path, plots.activation_variance(squares, tmp_path))
    statistics = [LayerStatistics(name, 10, 0.1 * (i + 1)) for i, name in enumerate(NAMES)]
    check(tmp_path, plots.weight_variance(statistics, tmp_path))
    assert set(LAYERS) <= set(KINDS)
