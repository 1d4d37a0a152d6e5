"""Candidates take turns at the clock, and every time comes with its spread."""

from dataclasses import replace

import pytest
import torch

from runtime.bench import layers
from runtime.bench.candidates import EAGER, GRAPH, Candidate
from runtime.bench.layers import LayerShape, measure_layer
from runtime.bench.timing import Spread, captured, interleaved, repeated, timer_for
from runtime.bench.workload import (
    BitWidths,
)
from tests.runtime.bench.small_network import (
    BITS,
    CPU,
    RANKS,
)
from tests.runtime.cuda_graph_stand_in import install


def test_candidates_take_turns():
    calls, ticks = [], iter(range(100))

    def timer(work):
        work()
        return float(next(ticks))

    rounds = []
    spreads = interleaved(
        {name: repeated(lambda name=name: calls.append(name), 2) for name in "abc"},
        rounds=3,
        timer=timer,
        calls=2,
        after_round=rounds.append,
    )
    assert "".join(calls) == "aabbcc" * 3
    assert rounds == [1, 2, 3]
    assert list(spreads) == list("abc")
    assert spreads["a"] == Spread(median=1.5, lowest=0.0, highest=3.0)  # 0, 3, 6 of two calls each
    assert spreads["c"] == Spread(median=2.5, lowest=1.0, highest=4.0)


def test_a_captured_run_calls_no_python(monkeypatch):
    install(monkeypatch)
    total, calls = torch.zeros(1), []

    def work():
        calls.append(1)
        total.add_(1)

    run = captured(work, 3)
    assert len(calls) == 2 + 3  # to warm up, and to capture
    before = float(total)
    run()
    assert float(total) == before + 3
    assert len(calls) == 5
    assert run.captured is work  # and so lives what the graph reads


def test_layers_are_captured_where_blocks_are(monkeypatch):
    """And where no activation stays unquantized; others are called again and again."""
    install(monkeypatch)
    ways = []
    monkeypatch.setattr(layers, "captured", lambda work, n: ways.append(("captured", n)) or work)
    monkeypatch.setattr(layers, "repeated", lambda work, n: ways.append(("repeated", n)) or work)
    plain = Candidate("plain", "torch", torch.float32, (EAGER, GRAPH))
    reference = Candidate("a", "backend", torch.float32, (EAGER,), backend="reference")
    graphed = replace(reference, name="b", modes=(EAGER, GRAPH))
    shape = LayerShape(6, 48, 32)
    for bits in (BITS, BitWidths(4, 16)):
        result = measure_layer(
            shape,
            1,
            [plain, reference, graphed],
            device=CPU,
            bits=bits,
            ranks=RANKS,
            rounds=1,
            timer=timer_for(CPU, processor_time=False),
            calls_each=2,
            after_round=lambda done: None,
        )
        assert set(result.times) == {"plain", "a", "b"}
        assert result.times["b"].preparation is not None
    once, twice = ("captured", 2), ("repeated", 2)
    assert ways == [once, twice, twice, once, once, once, twice, twice, twice, twice]


@pytest.mark.parametrize(
    ("seconds", "median"), [([3.0], 3.0), ([5.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 9.0], 3.0)]
)
def test_median_and_spread(seconds, median):
    assert Spread.of(seconds) == Spread(median, min(seconds), max(seconds))


def test_both_clocks_of_the_processor_see_work():
    def work():
        return sum(range(200_000))

    assert timer_for(CPU, processor_time=True)(work) > 0
    assert timer_for(CPU, processor_time=False)(work) > 0
