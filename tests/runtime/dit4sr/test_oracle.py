"""The network against stored tensors, and against a second forward pass written from the equations.

Both stand for the published network in a clone that lacks its golden tensors (test_sampler.py).
test_wrong_networks.py shows what they find.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR
from tests.runtime.dit4sr import plain_forward
from tests.runtime.dit4sr.oracle import (
    BOUNDS,
    GUIDANCE,
    SHIFT,
    STEPS,
    VARIANTS,
    Tensors,
    relative_error,
)
from tests.runtime.dit4sr.random_network import random_inputs, random_state

BOUND = BOUNDS[torch.float64]
GOLDEN = Path(__file__).parents[4] / "shared" / "golden"


def config_of(layers, dual, **changes):
    sizes = {
        "sample_size": 12,
        "in_channels": 3,
        "out_channels": 3,
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "joint_attention_dim": 10,
        "caption_projection_dim": 24,
        "pooled_projection_dim": 6,
        "pos_embed_max_size": 9,
    }
    return TransformerConfig(num_layers=layers, dual_attention_layers=dual, **sizes | changes)


CONFIGS = {
    "as published: dual attention in the first half": config_of(4, (0, 1)),
    "dual attention everywhere": config_of(2, (0, 1)),
    "one block, which is the last": config_of(1, ()),
    "patches of one pixel": config_of(2, (0,), patch_size=1, sample_size=4),
}
GRIDS = [(3, 5), (6, 1), (2, 2)]


def arrays(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_pass_and_sampling_are_the_stored_ones(variant, dtype):
    oracle = Tensors(dtype)
    network = oracle.network(variant)
    out = network(*oracle.inputs.values())
    assert relative_error(out, oracle.tensors[f"out.{variant}"]) < BOUNDS[dtype]
    assert (
        relative_error(oracle.sampled(network), oracle.tensors[f"loop.{variant}"]) < (BOUNDS[dtype])
    )


def plain_sampled(tensors, variant):
    inputs, state = arrays(tensors.inputs), arrays(tensors.state)
    prompts = [
        (inputs["prompt_embeds"][index : index + 1], inputs["pooled"][index : index + 1])
        for index in (1, 0)
    ]
    return plain_forward.sample(
        state,
        tensors.config,
        variant,
        inputs["hidden_states"][:1],
        inputs["control"][:1],
        *prompts,
        steps=STEPS,
        guidance=GUIDANCE,
        shift=SHIFT,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_stored_tensors_are_those_of_the_equations(variant):
    oracle = Tensors()
    inputs, state = arrays(oracle.inputs), arrays(oracle.state)
    out = plain_forward.forward(state, oracle.config, variant, **inputs)
    assert relative_error(out, oracle.tensors[f"out.{variant}"]) < BOUND
    latent = plain_sampled(oracle, variant)
    assert relative_error(latent, oracle.tensors[f"loop.{variant}"]) < BOUND


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_forward_pass_is_that_of_the_equations(config, variant, grid):
    state, inputs = random_state(config, seed=1), random_inputs(config, seed=2, grid=grid)
    network = DiT4SR(config, variant).double()
    network.load_state_dict(state)  # without a position table: its values are the equations' affair
    with torch.inference_mode():
        out = network(*inputs.values())
    expected = plain_forward.forward(arrays(state), config, variant, **arrays(inputs))
    assert relative_error(out, expected) < BOUND


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden tensors in {GOLDEN}")
@pytest.mark.parametrize("variant", ["q", "r1"])
def test_equations_are_those_of_the_published_network(variant):
    golden = Tensors(torch.float64, GOLDEN / f"dit4sr_tiny_{variant}.safetensors")
    inputs, state = arrays(golden.inputs), arrays(golden.state)
    out = plain_forward.forward(state, golden.config, variant, **inputs)
    assert relative_error(out, golden.tensors["out.sample"]) < BOUND
    assert relative_error(plain_sampled(golden, variant), golden.tensors["loop.latents"]) < BOUND


def test_variants_of_the_oracle_are_told_apart():
    oracle = Tensors().tensors
    np.testing.assert_array_equal(oracle["out.q"], oracle["out.f"])
    assert relative_error(oracle["out.r1"], oracle["out.q"]) > 1e-2
