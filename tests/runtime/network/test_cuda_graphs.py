"""CUDA graphs of a pass: replayed results are the pass's own; without CUDA it is just called."""

import logging

import pytest
import torch

from runtime.backends.triton.linear import TritonLinear
from runtime.network.cuda_graphs import GraphedForward
from runtime.network.finite_watch import number_of, watch_flag
from tests.artifacts.make_pack import random_weight
from tests.runtime.cuda_graph_stand_in import install
from tests.runtime.triton_device import seeded


def two_layers(size, device):
    """A pass of two layers whose bits come as a column."""
    block = (size // 4, size // 8)
    weights = [
        random_weight(name, size, size, block=block, seed=seed) for seed, name in enumerate("ab")
    ]
    layers = [
        TritonLinear(weight, "gaussian", residency).to(device)
        for weight, residency in zip(weights, ("packed", "int8"), strict=True)
    ]

    def forward(x, shift, bits):
        for layer in layers:
            x = layer(x, bits[layer.name]) + shift
        return x

    return forward


def inputs(seed, tokens, device, size=96):
    x = torch.randn(2, tokens, size, generator=seeded(seed))
    return x.to(device), torch.full((1,), float(seed), device=device)


def test_on_the_cpu_the_pass_is_called():
    calls = []

    def forward(x, shift, bits):
        calls.append(bits)
        return x + shift

    graphed = GraphedForward(forward)
    x, shift = inputs(3, 4, "cpu")
    assert torch.equal(graphed(x, shift, bits={"a": 4}), x + shift)
    assert torch.equal(graphed(x, shift), x + shift)
    assert calls == [{"a": 4}, None]


class Pass:
    """A pass of a few operations, one of them in place; counts how often Python runs it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, shift, bits):
        self.calls += 1
        y = x.transpose(-1, -2) * bits["a"]
        y += shift
        return y.softmax(-1)


@pytest.fixture
def stand_in(monkeypatch):
    install(monkeypatch)


def test_a_pass_is_called_then_captured_then_replayed(stand_in):
    forward = Pass()
    graphed = GraphedForward(forward)
    found, calls = [], []
    for seed in range(4):
        x, shift = inputs(seed, 5, "cpu")
        found.append((graphed(x, shift, bits={"a": 4}), Pass()(x, shift, {"a": 4})))
        calls.append(forward.calls)
    assert calls == [1, 2, 2, 2]
    for result, expected in found:  # compared last: later replays leave earlier results alone
        assert torch.equal(result, expected)


def test_inputs_of_any_strides_and_either_mode(stand_in):
    graphed = GraphedForward(Pass())
    for seed in range(4):
        x = torch.randn(1, 96, 5, generator=seeded(seed)).mT.expand(2, -1, -1)
        shift = torch.tensor(float(seed)).expand(5)
        with torch.inference_mode(seed != 3):
            found = graphed(x if seed % 2 else x.contiguous(), shift, bits={"a": 4})
        assert torch.equal(found, Pass()(x, shift, {"a": 4}))


def test_every_shape_and_column_has_a_graph(stand_in):
    forward = Pass()
    graphed = GraphedForward(forward)
    for turn in range(3):
        for tokens, bits in ((5, 4), (9, 4), (5, 3)):
            x, shift = inputs(turn, tokens, "cpu")
            column = {"a": bits, "b": 1}  # a new object of equal contents each time
            assert torch.equal(graphed(x, shift, bits=column), Pass()(x, shift, column))
    assert forward.calls == 6


def test_the_pass_unused_for_longest_makes_room(stand_in):
    forward = Pass()
    graphed = GraphedForward(forward, largest_count=2)
    x, shift = inputs(0, 5, "cpu")
    for bits in (4, 4, 3, 3, 4, 2):  # 3 is forgotten
        graphed(x, shift, bits={"a": bits})
    assert forward.calls == 5
    graphed(x, shift, bits={"a": 4})
    assert forward.calls == 5
    graphed(x, shift, bits={"a": 3})
    assert forward.calls == 6


def test_more_passes_than_are_remembered_are_just_called(stand_in):
    """In turns, none comes back before it is forgotten; captures that nobody replays would cost."""
    graphed = GraphedForward(Pass(), largest_count=2)
    x, shift = inputs(0, 5, "cpu")
    for bits in (1, 2, 3) * 3:
        graphed(x, shift, bits={"a": bits})
    assert not graphed.release()


def test_a_device_that_refuses_is_asked_once(stand_in, caplog):
    calls = []

    def waits(x, shift, bits):
        calls.append(float(x.sum()))  # reads a number: no graph can
        return x + shift

    graphed = GraphedForward(waits)
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            x, shift = inputs(seed, 5, "cpu")
            assert torch.equal(graphed(x, shift, bits={"a": 4}), x + shift)
    assert len(calls) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graphs, every step launches its kernels: CUDA error: operation not permitted when"
        " stream is capturing"
    ]


def watched(x, shift, bits):
    """A pass whose one layer tells of values that are not finite as kernels do."""
    flag = watch_flag(x.device)
    flag.copy_(torch.where(x.isfinite().all(), flag, number_of("some.layer")))
    return x + shift


def test_a_replay_tells_of_values_that_are_not_finite(stand_in, caplog):
    graphed = GraphedForward(watched)
    x, shift = inputs(1, 5, "cpu")
    graphed(x, shift)
    graphed(x, shift)
    broken = x.clone()
    broken[1, 2, 3] = torch.inf
    with pytest.raises(ValueError, match=r"layer some\.layer: a value is not finite"):
        graphed(broken, shift)
    assert torch.equal(graphed(x, shift), x + shift)
    assert graphed.release()  # the error took no graph away
    assert not caplog.records


def test_an_error_of_the_pass_itself_goes_through(stand_in, caplog):
    forward = Pass()

    def refuses(x, shift, bits):
        if bits["a"] == 0:
            raise ValueError("layer a: a value is not finite")
        return forward(x, shift, bits)

    graphed = GraphedForward(refuses)
    x, shift = inputs(0, 5, "cpu")
    for _ in range(3):
        with pytest.raises(ValueError, match="layer a"):
            graphed(x, shift, bits={"a": 0})
    for _ in range(3):
        graphed(x, shift, bits={"a": 4})
    assert forward.calls == 2
    assert not caplog.records


def test_released_graphs_do_not_come_back(stand_in):
    forward = Pass()
    graphed = GraphedForward(forward)
    x, shift = inputs(0, 5, "cpu")
    for _ in range(3):
        graphed(x, shift, bits={"a": 4})
    assert graphed.release()
    assert not graphed.release()
    for _ in range(3):
        assert torch.equal(graphed(x, shift, bits={"a": 4}), Pass()(x, shift, {"a": 4}))
    assert forward.calls == 5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [96, 1536])
def test_replays_equal_the_pass(size, dtype):
    device = torch.device("cuda")
    forward = two_layers(size, device)
    graphed = GraphedForward(forward, largest_count=3)
    columns = [{"a": 4, "b": 4}, {"a": 8, "b": 3}]
    kept = []
    for seed, (tokens, column) in enumerate(
        [(5, 0), (5, 0), (5, 0), (5, 1), (9, 0), (5, 0), (9, 0), (5, 1), (5, 1), (5, 1)]
    ):
        x, shift = (part.to(dtype) for part in inputs(seed, tokens, device, size))
        found = graphed(x, shift, bits=columns[column])
        expected = forward(x, shift, columns[column])
        assert torch.equal(found, expected)
        kept.append((found, expected))
    for found, expected in kept:  # later replays leave earlier results alone
        assert torch.equal(found, expected)
    x, shift = (part.to(dtype) for part in inputs(1, 5, device, size))
    x[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        graphed(x, shift, bits=columns[0])
