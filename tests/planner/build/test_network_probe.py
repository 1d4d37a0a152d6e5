"""Active parameters: the probe against the real network and against the pack format's list."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes, unread_tensors
from artifacts.family import Architecture
from planner.build.network_probe import active_linears, find_active_tensors
from runtime.dit4sr.family import probe_config
from runtime.dit4sr.network import DiT4SR

SMALL = TransformerConfig(
    num_layers=3,
    dual_attention_layers=(0, 1),
    num_attention_heads=2,
    attention_head_dim=16,
    caption_projection_dim=32,
    joint_attention_dim=24,
    pooled_projection_dim=12,
    in_channels=4,
    out_channels=4,
    sample_size=16,
    pos_embed_max_size=12,
)


@pytest.mark.parametrize(("variant", "active"), [("q", 495), ("f", 495), ("r1", 532)])
def test_active_linears_of_the_published_network(variant, active):
    assert len(active_linears(Architecture(FAMILY, TransformerConfig(), variant))) == active


def test_the_last_blocks_control_stream_is_active():
    # Its output is dropped, but its half of the feed-forward reaches the image by convolution.
    names = active_linears(Architecture(FAMILY, TransformerConfig(), "q"))
    assert "transformer_blocks.23.attn.to_q_control" in names
    assert "transformer_blocks.23.attn.to_out_control" in names
    assert "transformer_blocks.23.attn.add_q_proj" not in names
    assert "transformer_blocks.22.attn.add_q_proj" in names


@pytest.mark.parametrize("variant", ["q", "r1"])
@pytest.mark.parametrize(
    ("num_layers", "dual"), [(24, tuple(range(13))), (6, (1, 4)), (3, (0, 2)), (2, ()), (1, (0,))]
)
def test_the_probe_agrees_with_the_list_that_packs_are_read_by(variant, num_layers, dual):
    config = TransformerConfig(num_layers=num_layers, dual_attention_layers=dual)
    parameters = set(tensor_shapes(config)) - {POSITION_TABLE}
    unread = unread_tensors(config, variant)
    assert find_active_tensors(Architecture(FAMILY, config, variant)) == parameters - unread


@pytest.fixture(params=["q", "r1"])
def network(request):
    torch.manual_seed(3)
    network = DiT4SR(SMALL, request.param).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.3, 0.4)
    return network


@torch.no_grad()
def test_output_depends_on_every_active_tensor_and_on_no_other(network):
    generator = torch.Generator().manual_seed(4)
    inputs = [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(1, 4, 6, 8), (1, 4, 6, 8), (1, 5, 24), (1, 12)]
    ]
    inputs.append(torch.tensor([400.0], dtype=torch.float64))
    before = network(*inputs)
    active = find_active_tensors(Architecture(FAMILY, SMALL, network.variant))

    # Every entry by an amount of its own: softmax and norms ignore common shifts and factors.
    for name, parameter in network.named_parameters():
        kept = parameter.clone()
        parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        assert torch.equal(network(*inputs), before) == (name not in active), name
        parameter.copy_(kept)


def test_the_probe_keeps_blocks_and_shrinks_widths():
    probe = probe_config(TransformerConfig())
    assert (probe.num_layers, probe.dual_attention_layers) == (24, tuple(range(13)))
    assert probe.hidden_size == 16


def test_the_probe_leaves_the_callers_state_alone():
    find_active_tensors.cache_clear()
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    with torch.inference_mode():
        found = find_active_tensors(Architecture(FAMILY, SMALL, "q"))
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.rand(4), expected)
    find_active_tensors.cache_clear()
    assert find_active_tensors(Architecture(FAMILY, SMALL, "q")) == found


@pytest.mark.parametrize(
    ("module", "loads_torch"),
    [("planner.build.network_probe", False), ("runtime.dit4sr.network", True)],
)
def test_importing_the_probe_does_not_import_torch(module, loads_torch):
    # The second case proves that the detector detects.
    code = f"import sys, {module}; sys.exit(10 + ('torch' in sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == 10 + loads_torch
