"""What `qrun bench` measures: bits, ranks, sizes, kinds of blocks, random layers."""

import pytest
import torch

from artifacts.codec.block_shapes import expected_block
from artifacts.dit4sr.config import TransformerConfig
from runtime.bench.random_layers import WEIGHT_SIZE, random_layer
from runtime.bench.workload import (
    Ranks,
    Workload,
    parse_bits,
    parse_ranks,
    parse_sizes,
)
from runtime.dit4sr.measured_blocks import block_kinds
from schemas.errors import UsageError
from tests.architectures import dit4sr
from tests.runtime.bench.small_network import (
    BITS,
    RANKS,
    tiny_config,
)


@pytest.mark.parametrize("text", ["W4A4", "w3a16", "W8A8"])
def test_bits_are_read_as_they_are_written(text):
    assert str(parse_bits(text)) == text.upper()


@pytest.mark.parametrize("text", ["", "4", "W4", "W3.5A4", "W0A4", "W9A4", "W4A12", "W4A0"])
def test_bits_that_no_layer_has(text):
    with pytest.raises(UsageError):
        parse_bits(text)


def test_ranks_and_sizes():
    assert str(parse_ranks("32+8")) == "32+8"
    assert parse_sizes([1024, 512, 1024]) == (1024, 512)
    for wrong in ("32", "32+", "-1+2", "a+b"):
        with pytest.raises(UsageError):
            parse_ranks(wrong)
    with pytest.raises(UsageError, match="512, 1024"):
        parse_sizes([500])


def test_the_published_network_has_13_blocks_of_one_kind_and_11_of_the_other():
    kinds = block_kinds(TransformerConfig())
    assert [(kind.label, kind.index, kind.count) for kind in kinds] == [
        ("two attentions", 0, 13),
        ("one attention", 13, 11),
    ]
    workload = Workload((512, 1024), 2, BITS, Ranks(32, 8), 333)
    tokens = [workload.streams(dit4sr(TransformerConfig()), px).image_tokens for px in (512, 1024)]
    assert tokens == [1024, 4096]


def test_a_network_with_one_kind_of_block():
    kinds = block_kinds(tiny_config(layers=1, dual=()))
    assert [(kind.label, kind.index, kind.count) for kind in kinds] == [("one attention", 0, 1)]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_random_weights_have_the_usual_size(bits):
    generator = torch.Generator().manual_seed(0)
    layer = random_layer("a", 96, 192, weight_bits=bits, ranks=Ranks(0, 0), generator=generator)
    assert layer.global_rank == 0
    assert layer.local_block is None
    assert float(layer.residual().square().mean().sqrt()) == pytest.approx(WEIGHT_SIZE, rel=0.02)
    whole = random_layer("a", 96, 192, weight_bits=bits, ranks=RANKS, generator=generator)
    assert whole.global_rank == 4
    assert whole.local_block == expected_block(96, 192, 2)
    # Residual and both branches are alike in size, so nothing grows from layer to layer.
    assert float(whole.low_rank().square().mean().sqrt()) == pytest.approx(0.028, rel=0.4)
