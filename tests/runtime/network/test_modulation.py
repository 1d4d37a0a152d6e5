"""Modulations looked up: the right row for every element of a batch, and never another one."""

import pytest
import torch
from torch import nn

from runtime.dit4sr.network import DiT4SR
from runtime.network.cuda_graphs import GraphedForward
from runtime.network.modulation import (
    STEP_TOLERANCE,
    TabledLayer,
    TableIndex,
    install_table,
    project_modulations,
)
from schemas.bit_grid import LAST_TIMESTEP
from tests.artifacts.make_pack import TINY
from tests.runtime.cuda_graph_stand_in import install

STEPS = (1000.0, 750.5, 300.25)
LAYERS = ("transformer_blocks.0.norm1.linear", "norm_out.linear")


def make_network(variant="q", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DiT4SR(TINY, variant).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter.normal_(0, 0.2)
    return network


def make_inputs(pooled, timesteps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    batch = len(timesteps)
    latents = torch.randn(2, batch, TINY.in_channels, 8, 12, generator=generator)
    text = torch.randn(batch, 3, TINY.joint_attention_dim, generator=generator)
    return (*latents, text, pooled, torch.tensor(timesteps))


def prompts(count=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, TINY.pooled_projection_dim, generator=generator)


def tables_of(network, known, *, dtype=torch.float32):
    """What the layers give for every pair, as the planner makes it."""
    read = network.modulation_input(
        torch.tensor(STEPS).repeat(len(known)), known.repeat_interleave(len(STEPS), 0)
    )
    names = [
        n for n, _ in network.named_modules() if n.endswith(("norm1.linear", "context.linear"))
    ]
    return {
        name: network.get_submodule(name)(read).unflatten(0, (len(known), -1)).to(dtype)
        for name in [*names, "norm_out.linear"]
    }


def tabled(network, known, *, complete, dtype=torch.float32):
    tables = tables_of(network, known, dtype=dtype)
    install_table(network, TableIndex(torch.tensor(STEPS), known, complete=complete), tables)
    return network


@pytest.mark.parametrize("variant", ["q", "r1"])
@pytest.mark.parametrize("complete", [True, False])
def test_every_element_of_a_batch_gets_its_row(variant, complete):
    """Branches and tiles, in any order, each at a step of its own."""
    known = prompts()
    inputs = make_inputs(known[[1, 1, 0, 0, 1]], [STEPS[i] for i in (0, 2, 1, 2, 1)])
    expected = make_network(variant)(*inputs)
    found = tabled(make_network(variant), known, complete=complete)(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_pair_without_a_row_is_computed_or_not_a_number():
    known = prompts()
    other = prompts(3)[2:]
    pairs = make_inputs(torch.cat([known[:1], known[1:], other]), [STEPS[0], 500.0, STEPS[1]])
    expected = make_network()(*pairs)
    torch.testing.assert_close(
        tabled(make_network(), known, complete=True)(*pairs), expected, rtol=1e-5, atol=1e-5
    )
    alone = tabled(make_network(), known, complete=False)(*pairs)
    torch.testing.assert_close(alone[0], expected[0], rtol=1e-5, atol=1e-5)
    assert bool(alone[1:].isnan().all())


def test_the_table_goes_before_the_layers():
    """Where both are there: the table is that of the unquantized layers."""
    network = tabled(make_network(), prompts(), complete=True)
    for name in LAYERS:
        network.get_submodule(name).layer.weight.add_(1.0)
    inputs = make_inputs(prompts(), STEPS[:2])
    torch.testing.assert_close(network(*inputs), make_network()(*inputs), rtol=1e-5, atol=1e-5)


def test_steps_are_those_of_any_float32_schedule():
    index = TableIndex(torch.tensor(STEPS), prompts(), complete=False)
    beside = torch.nextafter(torch.tensor(STEPS), torch.tensor(0.0))
    rows = index(beside, prompts()[[0, 0, 0]])
    assert rows.index.tolist() == [0, 1, 2]
    assert bool(rows.known.all())
    away = torch.tensor(STEPS) - 2 * STEP_TOLERANCE
    assert not bool(index(away, prompts()[[0, 0, 0]]).known.any())
    ulp = LAST_TIMESTEP - float(torch.nextafter(torch.tensor(LAST_TIMESTEP), torch.tensor(0.0)))
    assert 4 * ulp < STEP_TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_looked_up_in_the_networks_own_dtype(dtype):
    network = tabled(make_network(), prompts(), complete=False, dtype=dtype)
    out = network(*make_inputs(prompts(), STEPS[:2]))
    assert out.dtype == torch.float32
    bound = {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    expected = make_network()(*make_inputs(prompts(), STEPS[:2]))
    error = (out - expected).norm() / expected.norm()
    assert 0 < error < bound


def test_a_network_with_the_table_alone_holds_no_layers():
    network = tabled(make_network(), prompts(), complete=False)
    left = {name for name, _ in network.named_parameters()}
    assert not any("norm1" in name or "norm_out" in name for name in left)
    assert not network.state_dict().keys() - left


@pytest.mark.parametrize("complete", [True, False])
def test_one_graph_serves_all_steps_and_prompts(monkeypatch, complete):
    install(monkeypatch)
    network = tabled(make_network(), prompts(), complete=complete)
    captured = []
    monkeypatch.setattr(
        GraphedForward,
        "_capture",
        lambda *a, original=GraphedForward._capture, **k: captured.append(1) or original(*a, **k),
    )
    calls = []
    graphed = GraphedForward(lambda *inputs: calls.append(1) or network(*inputs[:-1]))
    with torch.inference_mode():
        for step in (*STEPS, *STEPS[::-1]):
            inputs = make_inputs(prompts()[[1, 0]], [step, step])
            torch.testing.assert_close(graphed(*inputs), network(*inputs))
    assert len(captured) == 1
    assert len(calls) == 2  # the first as it is, the second while it is captured


def test_a_layer_without_a_table_beside_one_with_is_a_mistake():
    rows = TabledLayer(torch.zeros(1, 1, 4), None)
    network = tabled(make_network(), prompts(), complete=False)
    conditioning = network.condition(torch.tensor(STEPS[:1]), prompts()[:1])
    with pytest.raises(AssertionError):
        project_modulations([rows, nn.Linear(2, 4)], conditioning, None, torch.float32)
