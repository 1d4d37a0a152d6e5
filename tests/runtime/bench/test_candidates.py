"""What takes part in a measurement, and why something does not."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from runtime.backends import BACKENDS
from runtime.backends.reference import ReferenceLinear
from runtime.bench import peers
from runtime.bench.block import BenchBlock
from runtime.bench.candidates import all_candidates, attempt
from runtime.bench.memory import resident_bytes
from runtime.dit4sr.measured_blocks import block_kinds
from tests.architectures import dit4sr
from tests.runtime.bench.small_network import (
    BITS,
    CPU,
    RANKS,
    STREAMS,
    TINY,
    tiny_config,
)


def candidates(**changes):
    options = {"backends": None, "compiling": False, "peers": True} | changes
    return all_candidates(CPU, **options)


def test_a_package_that_is_not_there():
    assert peers._not_installed("torch") is None
    assert peers._not_installed("no_such_package") == "no_such_package is not installed"


@pytest.mark.usefixtures("no_peers")
def test_every_backend_and_peer_takes_part_or_says_why_not():
    found = {one.name: one for one in candidates()}
    assert {one.backend for one in found.values()} == {None, *BACKENDS}
    assert found["torch bfloat16"].missing is None
    assert found["triton bfloat16"].missing == "it runs on CUDA alone"
    assert found["SDNQ int8"].missing == "sdnq is not installed"
    assert found["torchao int8 dynamic"].missing == "torchao is not installed"
    assert found["torchao fp8 dynamic"].missing is not None
    names = [name for one in found.values() for name in one.mode_names]
    assert len(names) == len(set(names))
    chosen = candidates(backends=["reference"], peers=False)
    assert [one.name for one in chosen] == ["torch bfloat16", "torch float32", "reference float32"]


def test_on_cuda_graphs_are_compared_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    found = {
        one.name: one
        for one in all_candidates(
            torch.device("cuda", 7), backends=None, compiling=True, peers=False
        )
    }
    assert found["triton bfloat16"].mode_names == [
        "triton bfloat16",
        "triton bfloat16, compiled",
        "triton bfloat16, graph",
        "triton bfloat16, compiled, graph",
    ]
    assert found["reference bfloat16"].mode_names == ["reference bfloat16"]
    assert found["cpu bfloat16"].missing is not None


def test_what_goes_wrong_is_a_reason_of_one_line():
    def fail():
        raise RuntimeError("no compiler\nand a long story")

    assert attempt(fail) == "RuntimeError: no compiler"
    assert attempt(lambda: 3) == 3

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupt)


ALONE = block_kinds(tiny_config(layers=1, dual=()))[0]


@pytest.mark.parametrize("kind", [*block_kinds(TINY), ALONE])
def test_no_candidate_holds_layers_that_nobody_reads(kind):
    config = tiny_config(layers=1, dual=()) if kind == ALONE else TINY
    plain = BenchBlock(dit4sr(config), kind, STREAMS, CPU, torch.float32)
    assert not {"attn.to_k_control", "attn2.add_q_proj"} & set(plain.layer_names)
    reference = next(one for one in candidates() if one.backend == "reference")
    block = reference.make_block(dit4sr(config), kind, STREAMS, CPU, BITS, RANKS)
    assert block.layer_names == plain.layer_names
    assert block.weights == plain.weights
    assert set(block.column) == set(block.layer_names)
    assert all(isinstance(layer, ReferenceLinear) for layer in block.layers)
    block.work()()


def test_torchao_converts_the_layers_it_is_given(monkeypatch):
    asked = []

    def quantize(module, config, filter_fn):
        names = [name for name, layer in module.named_modules() if filter_fn(layer, name)]
        asked.append((config, names))

    class NewConfig:
        def __init__(self, set_inductor_config=True):
            self.inductor = set_inductor_config

    class OldConfig:
        pass

    fake = SimpleNamespace(
        quantize_=quantize,
        Int8DynamicActivationInt8WeightConfig=NewConfig,
        Float8DynamicActivationFloat8WeightConfig=OldConfig,
    )
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchao.quantization", fake)
    _, int8, float8 = peers.all_peers(compiling=False)
    assert int8.missing(CPU) is None
    assert float8.missing(CPU) == "it runs on CUDA alone"
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    for peer in (int8, float8):
        peer.apply(module, ["a"], torch.bfloat16)
    assert [names for _, names in asked] == [["a"], ["a"]]
    assert asked[0][0].inductor is False


def test_sdnq_quantizes_every_layer(capsys, monkeypatch):
    pytest.importorskip("sdnq", reason="an outside peer, installed by whoever measures it")
    monkeypatch.setenv("SDNQ_USE_TORCH_COMPILE", "0")
    sdnq = next(one for one in candidates() if one.name.startswith("SDNQ"))
    assert sdnq.name == "SDNQ int8"
    config = tiny_config(heads=4, head=32)
    block = sdnq.make_block(dit4sr(config), block_kinds(config)[0], STREAMS, CPU, BITS, RANKS)
    assert all(hasattr(layer, "sdnq_dequantizer") for layer in block.layers)
    assert block.column is None
    block.work()()
    assert resident_bytes(block.layers) < 1.2 * block.weights  # one byte each, and scales
    assert capsys.readouterr().out == ""
