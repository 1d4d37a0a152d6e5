"""Memory that a layer keeps, found wherever it lies."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

from runtime.backends.cpu.linear import CpuLinear
from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton.linear import TritonLinear
from runtime.bench.memory import resident_bytes
from runtime.bench.random_layers import random_layer
from tests.runtime.bench.small_network import (
    RANKS,
    needs_onednn,
)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Slotted:
    __slots__ = ("kept",)


def test_tensors_are_found_wherever_a_layer_keeps_them():
    shared = torch.zeros(100)  # 400 bytes
    layer = nn.Linear(4, 2)  # 40 bytes
    layer.pair = Pair(torch.zeros(3, dtype=torch.int8), shared)  # 3
    layer.by_dtype = {torch.float32: [torch.zeros(2, dtype=torch.bfloat16)]}  # 4
    layer.slotted = Slotted()
    layer.slotted.kept = shared[:10]  # a view: nothing new
    other = nn.Module()
    other.register_buffer("again", shared)
    layer.itself = [layer]
    assert resident_bytes([layer, other]) == 40 + 400 + 3 + 4
    assert resident_bytes([nn.Identity()]) == 0


def test_a_view_counts_as_what_it_keeps_alive():
    holder = SimpleNamespace(part=torch.zeros(1000)[5:6])
    assert resident_bytes([holder]) == 4000


def test_a_tensor_that_stands_for_others_counts_as_those():
    class Standing(torch.Tensor):
        def __tensor_flatten__(self):
            return ["codes", "scale"], None

    standing = torch.zeros(1000).as_subclass(Standing)
    standing.codes, standing.scale = torch.zeros(10, dtype=torch.int8), torch.zeros(2)
    assert resident_bytes([standing]) == 18


def weight(bits=4):
    generator = torch.Generator().manual_seed(1)
    return random_layer("a", 96, 192, weight_bits=bits, ranks=RANKS, generator=generator)


@needs_onednn
def test_memory_of_the_cpu_backend_grows_with_what_it_makes_on_the_way():
    layer = CpuLinear(weight(), "gaussian")
    before = resident_bytes([layer])
    assert before >= 96 * 192  # one byte per weight
    layer(torch.randn(3, 192), 4)
    assert resident_bytes([layer]) > before


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_memory_of_triton_layers_is_at_least_what_they_say(residency):
    layer = TritonLinear(weight(), "gaussian", residency)
    assert layer.resident_bytes <= resident_bytes([layer]) <= layer.resident_bytes + 4 * 192


def test_memory_of_the_reference_is_its_buffers():
    layer = ReferenceLinear(weight(), "gaussian")
    assert resident_bytes([layer]) == sum(buffer.nbytes for buffer in layer.buffers())
