"""The arithmetic of the planner's benchmark, and that its stages are the planner's."""

import json
import sys

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.family import LinearShape
from benchmarks.planner_speed import __main__ as benchmark
from benchmarks.planner_speed.accuracy import accuracy
from benchmarks.planner_speed.layers import Sample, network_shapes, sampled
from benchmarks.planner_speed.report import network_cost, table
from benchmarks.planner_speed.stages import STAGES, Stopwatch, time_planner
from planner.recipes import recipe_settings
from planner.target import parse_target


def test_the_network_is_the_published_one():
    shapes = network_shapes(TransformerConfig())
    assert shapes[LinearShape(9216, 1536)] == 11 + 23
    weights = sum(shape.out_features * shape.in_features * n for shape, n in shapes.items())
    assert weights == sum(round(sample.millions * 1e6) for sample in sampled(1))
    assert {sample.timed for sample in sampled(1)} == {1}
    assert all(sample.timed == sample.count for sample in sampled(None))


def test_a_layer_is_the_same_every_time():
    sample = Sample(LinearShape(8, 4), 5, 2)
    assert torch.equal(sample.weight(1), sample.weight(1))
    assert not torch.equal(sample.weight(0), sample.weight(1))
    assert sample.weight(0).shape == (8, 4)


def test_every_stage_is_timed_and_no_part_is_longer_than_the_whole():
    watch = Stopwatch()
    settings = recipe_settings("q-dit4sr", parse_target("W4A4"), global_rank=4, local_rank=2)
    time_planner(torch.randn(96, 128), 4, settings, watch)
    assert set(watch.seconds) == {*STAGES, "measure", "whole layer"}
    parts = sum(watch.seconds[stage] for stage in STAGES)
    assert 0 < parts <= watch.seconds["whole layer"]


def shape(planner, peer, millions):
    return {
        "shape": [4, 8],
        "layers": 3,
        "timed": 1,
        "million_weights": millions,
        "planner": planner,
        "stages": {"measure": 1.0},
        "peer": peer,
    }


def test_shapes_count_by_their_weights():
    cost = network_cost([shape(10.0, 20.0, 3.0), shape(50.0, 60.0, 1.0)])
    assert cost["planner"] == pytest.approx(20)
    assert cost["planner_s"] == pytest.approx(0.08)
    assert cost["ratio_to_sdnq"] == pytest.approx(80 / 120)
    assert network_cost([shape(10.0, None, 3.0)])["ratio_to_sdnq"] is None


def test_thorough_factors_are_nearest_to_exact_ones():
    settings = recipe_settings("q-dit4sr", parse_target("W4A4"), global_rank=6, local_rank=4)
    weight = torch.randn(400, 320, generator=torch.Generator().manual_seed(0))
    rows = {row["effort"]: row for row in accuracy(settings, {"random": weight})}
    assert abs(rows["thorough"]["residual_db"]) < 1e-3
    assert rows["thorough"]["global_lost"] < rows["normal"]["global_lost"] < 0.1
    assert rows["normal"]["residual_db"] < rows["fast"]["residual_db"] < 0.1


@pytest.mark.parametrize("with_peer", [False, True])
def test_it_prints_and_writes(monkeypatch, tmp_path, capsys, with_peer):
    file = tmp_path / "result.json"
    monkeypatch.setattr(benchmark, "sampled", lambda _: [Sample(LinearShape(96, 64), 3, 2)])
    monkeypatch.setattr(benchmark, "is_available", lambda: with_peer)
    monkeypatch.setattr(benchmark, "sdnq_version", lambda: "0")
    monkeypatch.setattr(benchmark, "time_peer", lambda _: 0.5)
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: None)
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["planner_speed", "--quick", "--json", str(file)])
    benchmark.main()
    torch.set_num_threads(threads)
    result = json.loads(file.read_text())
    assert (result["ratio_to_sdnq"] is not None) == with_peer
    assert "96×64" in capsys.readouterr().out
    assert table(result)
