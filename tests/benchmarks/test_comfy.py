"""comfy-kitchen's layers in place of a network's, by a stand-in where the package is missing."""

import importlib.machinery
import importlib.util
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from benchmarks.quality import comfy
from benchmarks.quality.compare import Comparison
from benchmarks.quality.peers import COMFY, SDNQ, peer_of
from benchmarks.quality.rows import plan
from runtime.bench.workload import Ranks


def stand_in():
    """A module with the four functions, which stores 4-bit codes in halves of a byte's width."""
    module = types.ModuleType("comfy_kitchen")
    module.__spec__ = importlib.machinery.ModuleSpec("comfy_kitchen", None)

    def quantize(weight):
        scales = weight.abs().amax(1) / 7
        codes = (weight / scales[:, None]).round().to(torch.int8)
        return codes[:, ::2] & 15 | codes[:, 1::2] << 4, scales

    def linear(x, packed, scales, bias):
        low = (packed << 4) >> 4
        codes = torch.stack([low, packed >> 4], 2).flatten(1)
        return F.linear(x, codes * scales[:, None], bias)

    def w4a8(weight, group_size, convrot_groupsize):
        assert weight.shape[1] % convrot_groupsize == 0
        codes, scales = quantize(weight)
        groups = torch.ones(len(weight), weight.shape[1] // group_size, dtype=torch.uint8)
        return codes, groups, scales, None, torch.zeros(16)

    def w4a4(weight, convrot_groupsize):
        assert weight.shape[1] % 64 == weight.shape[1] % convrot_groupsize == 0
        return quantize(weight)

    module.quantize_convrot_w4a4_weight = w4a4
    module.convrot_w4a4_linear = lambda x, codes, scales, bias, **_: linear(x, codes, scales, bias)
    module.quantize_w4a8_int8_weight = w4a8
    module.w4a8_int8_linear = lambda x, codes, _groups, scales, *, bias, **_: linear(
        x, codes, scales, bias
    )
    return module


@pytest.fixture
def package(monkeypatch):
    if importlib.util.find_spec("comfy_kitchen") is None:
        monkeypatch.setitem(sys.modules, "comfy_kitchen", stand_in())


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("layer", comfy.LAYERS)
def test_layers_are_replaced_and_counted_as_stored(layer):
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(192, 96), torch.nn.Linear(96, 64))
    network.requires_grad_(False)
    x = torch.randn(2, 5, 192)
    expected = network(x)
    storage = comfy.apply_comfy(network, ["0", "1"], {"layer": layer})
    assert comfy.is_available()
    error = float((network(x) - expected).norm() / expected.norm())
    assert 1e-3 < error < 0.4
    if layer == "convrot_w4a4":  # 96 inputs are padded to 128
        bits = 4 * (192 * 96 + 128 * 64) + 32 * (96 + 64)
        assert storage.groups == (96, 192)
    else:
        bits = (4 + 8 / 16) * (192 * 96 + 96 * 64) + 32 * (96 + 64) + 2 * 32 * 16
        assert storage.groups == (16,)
    assert storage.bits_per_weight == pytest.approx(bits / (192 * 96 + 96 * 64))


def test_rotations_take_the_largest_block_that_divides_the_width():
    assert [comfy.rotation_block(width) for width in (768, 192, 96, 64)] == [256, 64, 16, 64]


def test_every_row_knows_its_peer():
    rows = {row.full_name: row for row in plan(["W4A4"], Ranks(4, 2), Ranks(32, 8))}
    assert peer_of(rows["W4A4/comfy-convrot-w4a4"]) is COMFY
    assert peer_of(rows["W4A8/comfy-w4a8-int8"]) is COMFY
    assert peer_of(rows["W4A16/sdnq-int4"]) is SDNQ
    assert peer_of(rows["W4A8/quarot"]) is None
    # What was measured before this peer came keeps its place.
    assert "comfy" not in rows["W4A4/rtn"].settings()
    assert rows["W4A4/comfy-convrot-w4a4"].settings()["comfy"] == {"layer": "convrot_w4a4"}


def test_a_row_of_a_missing_package_is_left_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    said = []
    comparison = Comparison.__new__(Comparison)
    comparison.say, comparison.sampling = said.append, {}
    comparison.store = types.SimpleNamespace(load=lambda _name, _key: None)
    row = next(row for row in plan(["W4A4"], Ranks(4, 2), Ranks(32, 8)) if row.comfy)
    assert comparison.row(row, "[1/1]") is None
    assert said == ["[1/1]: left out, comfy-kitchen is not installed"]
