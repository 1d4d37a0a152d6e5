"""``torch.compile`` goes around layers on the kernels: a block is one piece of compiled code."""

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from runtime.backends.triton.linear import TritonLinear
from runtime.bench.block import BenchBlock
from runtime.bench.random_layers import random_layer
from runtime.bench.workload import Ranks
from runtime.dit4sr.measured_blocks import block_kinds
from runtime.network.blocks import Streams
from runtime.network.modulation import Conditioning
from tests.architectures import dit4sr
from tests.runtime.triton_device import DEVICE, relative_error, seeded

CONFIG = TransformerConfig(
    sample_size=16,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=24,
    caption_projection_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=32,
    dual_attention_layers=(0,),
)
STREAMS = Streams(grid=(2, 2), text_tokens=3, batch=2)


def on_kernels(name, layer):
    weight = random_layer(
        name,
        layer.out_features,
        layer.in_features,
        weight_bits=4,
        ranks=Ranks(2, 1),
        generator=seeded(0),
    )
    return TritonLinear(weight, "gaussian", "packed")


@pytest.mark.parametrize("kind", block_kinds(CONFIG), ids=lambda kind: kind.label)
def test_a_quantized_block_compiles_in_one_piece(kind):
    block = BenchBlock(dit4sr(CONFIG), kind, STREAMS, DEVICE, torch.float32, convert=on_kernels)
    tokens, text, vector = block.inputs
    arguments = (tokens, text, Conditioning(vector), STREAMS.grid, block.column)
    compiled = torch.compile(block.block, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        found, expected = compiled(*arguments), block.block(*arguments)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 1e-5
