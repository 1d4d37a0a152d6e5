"""Layers side by side give what one after the other gives."""

import threading

import pytest
import torch

from planner.build.workers import in_order, load_linear_algebra, one_thread
from planner.recipes import recipe_settings
from planner.target import parse_target
from planner.weights.layer import allocation_variance, quantize_layer


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads):
    assert list(in_order(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    assert list(in_order(lambda n: n, [])) == []


def test_as_many_are_at_work_as_there_are_threads(threads):
    together = threading.Barrier(threads, timeout=10)
    assert list(in_order(lambda n: together.wait() and n, range(threads)))


def test_each_computes_with_one_thread(threads):
    assert set(in_order(lambda _: torch.get_num_threads(), range(9))) == {1}
    assert torch.get_num_threads() == threads


def test_an_error_comes_in_its_turn_and_leaves_the_rest_undone(threads):
    begun = []

    def work(n):
        begun.append(n)
        if n == 3:
            raise ValueError("three")
        return n

    results = in_order(work, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) <= 4 + threads
    assert torch.get_num_threads() == threads


def test_a_loop_that_is_left_leaves_the_rest_undone(threads):
    begun = []
    results = in_order(begun.append, range(100))
    next(results)
    results.close()
    assert len(begun) <= 1 + threads
    assert torch.get_num_threads() == threads


def test_one_thread_for_a_block(threads):
    with one_thread() as before:
        assert (before, torch.get_num_threads()) == (threads, 1)
    assert torch.get_num_threads() == threads


def test_layers_do_not_depend_on_the_number_of_threads():
    settings = recipe_settings("q-dit4sr", parse_target("W4A4"), global_rank=8, local_rank=2)
    weights = [
        torch.randn(384, 320, generator=torch.Generator().manual_seed(seed)) for seed in range(4)
    ]

    def make(weight):
        layer = quantize_layer("a", weight, None, 4, settings)
        return allocation_variance(weight, settings), layer.weight.tensors()

    def on(count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            with torch.inference_mode():
                return list(in_order(make, weights))
        finally:
            torch.set_num_threads(before)

    for (variance, tensors), (expected_variance, expected) in zip(on(3), on(1), strict=True):
        assert variance == expected_variance
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_gpus_linear_algebra_is_loaded_before_threads_ask_for_it(monkeypatch):
    """Threads that load it at once fail: seen on an H100."""
    asked = []
    eye = torch.eye

    def recorded(size, device=None):
        asked.append(device)
        return eye(size)

    monkeypatch.setattr(torch, "eye", recorded)
    for device in (None, torch.device("cpu"), torch.device("cuda", 1)):
        load_linear_algebra(device)
    assert asked == [torch.device("cuda", 1)]
