"""CUDA graphs of a pass: replayed results are the pass's own; without CUDA it is just called."""

import pytest
import torch

from runtime.backends.triton.adapter import layer_tensors
from runtime.backends.triton.device import missing_reason
from runtime.backends.triton.graphs import GraphedForward
from runtime.backends.triton.linear import TritonLinear
from tests.artifacts.make_pack import random_weight
from tests.runtime.triton_device import seeded


def two_layers(device):
    """A pass of two layers whose bits come as a column."""
    weights = [random_weight(name, 96, 96, seed=seed) for seed, name in enumerate("ab")]
    layers = [
        TritonLinear(layer_tensors(weight, "gaussian"), "gaussian", residency).to(device)
        for weight, residency in zip(weights, ("packed", "int8"), strict=True)
    ]

    def forward(x, shift, bits):
        for layer in layers:
            x = layer(x, bits[layer.name]) + shift
        return x

    return forward


def inputs(seed, tokens, device):
    x = torch.randn(2, tokens, 96, generator=seeded(seed))
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are CUDA's")
def test_replays_equal_the_pass():
    device = torch.device("cuda")
    forward = two_layers(device)
    graphed = GraphedForward(forward, largest_count=3)
    columns = [{"a": 4, "b": 4}, {"a": 8, "b": 3}]
    kept = []
    for seed, (tokens, column) in enumerate(
        [(5, 0), (5, 0), (5, 1), (9, 0), (5, 0), (9, 1), (5, 1)]
    ):
        x, shift = inputs(seed, tokens, device)
        found = graphed(x, shift, bits=columns[column])
        expected = forward(x, shift, columns[column])
        assert torch.equal(found, expected)
        kept.append((found, expected))
    for found, expected in kept:  # later replays leave earlier results alone
        assert torch.equal(found, expected)
    x, shift = inputs(1, 5, device)
    x[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        graphed(x, shift, bits=columns[0])


def test_a_device_without_the_kernels_says_why(monkeypatch):
    assert missing_reason(torch.device("cpu")) == "it runs on CUDA alone"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)
    reason = missing_reason(torch.device("cuda", 3))
    assert reason == "it needs compute capability 8.0, the device has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert missing_reason(torch.device("cuda", 4)) is None
