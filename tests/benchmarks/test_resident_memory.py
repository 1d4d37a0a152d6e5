"""Memory by kind of layer adds up to that of all layers at once."""

from collections import Counter

import pytest
import torch

from artifacts.dit4sr.layout import POSITION_TABLE
from benchmarks.resident_memory import WAYS, _maker, layers_bytes, measure, render
from runtime.bench.memory import resident_bytes
from tests.architectures import dit4sr
from tests.artifacts.make_pack import TINY


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.label)
def test_layers_of_a_shape_take_what_the_second_adds(way):
    shapes = Counter(dit4sr(TINY).quantizable.values())
    layers = [_maker(way, shape)() for shape, count in shapes.items() for _ in range(count)]
    apart = layers_bytes(way, shapes)
    together = resident_bytes(layers)
    # Layers of different shapes may share a rotation, which `apart` counts once for each.
    assert 0 <= apart - together < 0.05 * together


def test_what_is_unquantized_is_the_networks_own():
    ways = measure(dit4sr(TINY))["ways"]
    half, full = (ways[f"unquantized {dtype}"]["total_bytes"] for dtype in ("bfloat16", "float32"))
    table = 2 * torch.Size(dit4sr(TINY).tensor_shapes[POSITION_TABLE]).numel()  # as stored
    assert full - table == 2 * (half - table)
    unread = dit4sr(TINY).unread_tensors
    shapes = dit4sr(TINY).tensor_shapes
    numbers = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name not in unread)
    assert half == 2 * numbers


def test_packed_codes_take_least():
    page = render(result := measure(dit4sr(TINY)))
    sizes = {label: way["total_bytes"] for label, way in result["ways"].items()}
    assert sizes["triton-packed bfloat16"] < sizes["triton bfloat16"] < sizes["cpu float32"]
    assert all(label in page for label in sizes)


def test_a_table_stands_for_the_layers_of_quantized_ways():
    weights, table = (measure(dit4sr(TINY), choice) for choice in ("weights", "table"))
    for way in WAYS:
        before, after = (found["ways"][way.label]["layers_bytes"] for found in (weights, table))
        assert (after < before) == (way.name is not None)
    assert table["table_bytes"] > 0
    assert "--modulation table" in render(table)
    assert "--modulation" not in render(weights)
