"""Weights and inputs under which no part of the network can hide."""

import math

import torch

from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes

SMALL = ("context_embedder.", ".attn.to_k.", ".attn2.to_q.")
"""Layers whose results are so small that the norms after them show their epsilon."""


def random_state(config, seed):
    """A checkpoint of normal weights in float64, without the position table.

    Rows have about the norm 1, so that values neither fade nor grow on their way, and biases are
    far from 0: a missing gate, shift or bias changes the output by more than rounding does.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in tensor_shapes(config).items():
        if name == POSITION_TABLE:
            continue
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        if ".norm_" in name:
            state[name] = 1 + 0.3 * normal
        elif name.endswith(".bias"):
            state[name] = 0.4 * normal
        else:
            state[name] = normal / math.sqrt(math.prod(shape[1:]))
        if any(part in name for part in SMALL):
            state[name] *= 0.002
    return state


def random_inputs(config, seed, *, grid=(3, 5), tokens=4):
    """Two images at two timesteps, in float64; ``grid`` is the latent's, in tokens."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    latent = (2, config.in_channels, *(side * config.patch_size for side in grid))
    return {
        "hidden_states": normal(*latent),
        "control": normal(*latent),
        "prompt_embeds": normal(2, tokens, config.joint_attention_dim),
        "pooled": normal(2, config.pooled_projection_dim),
        "timestep": torch.tensor([710.0, 35.0], dtype=torch.float64),
    }
