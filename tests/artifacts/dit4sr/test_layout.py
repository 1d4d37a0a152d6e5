import math

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import (
    POSITION_TABLE,
    LinearShape,
    block_linears,
    tensor_shapes,
    unread_tensors,
)
from runtime.dit4sr.network import DiT4SR
from tests.artifacts.make_pack import TINY

CONFIGS = {
    "published": TransformerConfig(),
    "tiny": TINY,
    "one block": TINY.model_copy(update={"num_layers": 1}),
    "no dual": TINY.model_copy(update={"dual_attention_layers": ()}),
    "all dual": TINY.model_copy(update={"num_layers": 3, "dual_attention_layers": (0, 1, 2)}),
    "other widths": TransformerConfig(
        sample_size=32,
        patch_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=3,
        num_attention_heads=3,
        attention_head_dim=12,
        joint_attention_dim=10,
        caption_projection_dim=36,
        pooled_projection_dim=14,
        pos_embed_max_size=6,
        dual_attention_layers=(1,),
    ).model_copy(update={"out_channels": 5}),  # not a network that runs, but all sizes differ
}


def test_published_numbers():
    config = CONFIGS["published"]
    linears = block_linears(config)
    assert len(linears) == 585
    assert (
        sum(shape.out_features * shape.in_features for shape in linears.values()) == 2_694_316_032
    )
    assert sum(shape.out_features + shape.in_features for shape in linears.values()) == 2_652_672
    shapes = tensor_shapes(config)
    assert math.prod(shapes.pop(POSITION_TABLE)) == 226_492_416
    assert sum(map(math.prod, shapes.values())) == 2_716_814_144


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_network_in_names_shapes_and_order(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        network = DiT4SR(config)
    shapes = {tensor: tuple(value.shape) for tensor, value in network.state_dict().items()}
    expected = tensor_shapes(config)
    del expected[POSITION_TABLE]  # a network has it only where a checkpoint brings it
    assert list(expected.items()) == list(shapes.items())


def test_block_linears_are_the_networks_linears():
    with torch.device("meta"):
        network = DiT4SR(TINY)
    linears = {
        name: LinearShape(layer.out_features, layer.in_features)
        for name, layer in network.transformer_blocks.named_modules(prefix="transformer_blocks")
        if isinstance(layer, torch.nn.Linear)
    }
    found = block_linears(TINY)
    assert found == linears
    assert all(f"{name}.bias" in tensor_shapes(TINY) for name in found)


@pytest.mark.parametrize("variant", ["q", "f", "r1"])
@pytest.mark.parametrize("name", ["tiny", "one block", "no dual", "all dual"])
def test_unread_tensors_are_exactly_those_without_a_gradient(name, variant):
    config = CONFIGS[name]
    torch.manual_seed(0)
    network = DiT4SR(config, variant).double()
    for parameter in network.parameters():
        # Away from zero biases and unit norms, so that no gradient vanishes by symmetry.
        torch.nn.init.normal_(parameter, std=0.3)
    network(
        torch.randn(2, 4, 8, 8, dtype=torch.float64),
        torch.randn(2, 4, 8, 8, dtype=torch.float64),
        torch.randn(2, 5, config.joint_attention_dim, dtype=torch.float64),
        torch.randn(2, config.pooled_projection_dim, dtype=torch.float64),
        torch.tensor([100.0, 900.0], dtype=torch.float64),
    ).square().sum().backward()
    unread = {
        tensor
        for tensor, parameter in network.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.any())
    }
    assert unread_tensors(config, variant) == unread
