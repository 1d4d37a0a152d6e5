"""A whole small network from a pack, its quantized layers on the kernels."""

from dataclasses import replace

import pytest
import torch

from artifacts.pack.reader import open_pack
from runtime.backends import BACKENDS, Backend
from runtime.backends.triton import check_results, self_check
from runtime.backends.triton.linear import TritonLinear
from runtime.load import network_from_pack
from runtime.network.cuda_graphs import GraphedForward
from tests.artifacts.make_pack import PROMPT_TOKENS, TINY, make_pack
from tests.runtime.triton_device import DEVICE, seeded


@pytest.fixture
def tiny_pack(tmp_path):
    make_pack(tmp_path / "tiny.qpack")
    return open_pack(tmp_path / "tiny.qpack")


def network(pack, backend):
    return network_from_pack(pack, device=DEVICE, dtype=torch.float32, backend=backend)


def arguments():
    shapes = ((1, 4, 4, 6), (1, 4, 4, 6), (1, PROMPT_TOKENS, TINY.joint_attention_dim), (1, 20))
    tensors = [torch.randn(shape, generator=seeded(seed)) for seed, shape in enumerate(shapes)]
    return [tensor.to(DEVICE) for tensor in (*tensors, torch.full((1,), 500.0))]


@pytest.mark.parametrize(("backend", "bound"), [("triton-packed", 1e-4), ("triton", 2e-2)])
def test_a_network_equals_the_references(tiny_pack, monkeypatch, backend, bound):
    """Every kind of layer that a pack can hold: 2, 3, 4, 5, 8 bits, with and without factors."""
    here = Backend("here", BACKENDS[backend].make_layer, lambda device: None)
    monkeypatch.setitem(BACKENDS, "here", here)
    bits = tiny_pack.bit_grid.at_step(1)
    expected = network(tiny_pack, "reference")(*arguments(), bits)
    found = GraphedForward(network(tiny_pack, "here"))(*arguments(), bits=bits)
    assert float((found - expected).norm() / expected.norm()) < bound


def test_auto_takes_the_kernels_once_they_passed_their_check(tiny_pack, monkeypatch, tmp_path):
    """All of it but the device: the kernels' own check on the pack's layers, and what it is for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(self_check, "TOKENS", (1, 9))
    check_results.forget()
    here = replace(BACKENDS["triton"], missing=lambda device: None)
    elsewhere = replace(BACKENDS["cpu"], missing=lambda device: "not here")
    monkeypatch.setattr("runtime.backends.BACKENDS", {**BACKENDS, "cpu": elsewhere, "triton": here})
    modules = list(network(tiny_pack, "auto").modules())
    assert sum(isinstance(module, TritonLinear) for module in modules) == len(tiny_pack.layer_names)
    assert check_results.results_file().is_file()
