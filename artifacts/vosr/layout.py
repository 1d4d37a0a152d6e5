"""Names and shapes of every tensor of a one-step VOSR network, from its configuration alone.

Reading a pack needs them before anything is allocated, and this layer of the project may not import
the network; a test holds the two equal.
"""

from collections.abc import Iterator

from artifacts.family import LatentSize, LinearShape, Shape
from artifacts.vosr.config import VAE_FACTOR, VosrConfig

ROTARY_COSINES = "feat_rope.freqs_cos"
ROTARY_SINES = "feat_rope.freqs_sin"
"""Buffers, not parameters: they can be rebuilt at load."""

TIME_WAVES = 256
"""Width of the sinusoidal embedding of a time."""
_MODULATIONS = 6
"""Shift, scale and gate of self-attention, and of the feed-forward."""
_LARGEST_TILES = 16
"""Sides of the training latent in the longest tile: rotary positions are stretched to any length,
and something has to bound what a pack may ask for."""


def tensor_shapes(config: VosrConfig) -> dict[str, Shape]:
    """Every tensor of the full network's state dict, in network order: name -> shape."""
    width, patch = config.dim, config.patch_size
    table = (config.trained_tokens**2, config.head_dim)
    shapes: dict[str, Shape] = {
        "x_embedder.proj.weight": (width, 2 * config.latent_channels, patch, patch),
        "x_embedder.proj.bias": (width,),
    }
    shapes.update(_time_embedding("t_embedder", width))
    shapes.update({ROTARY_COSINES: table, ROTARY_SINES: table})
    shapes.update(_linear("t_block.1", _MODULATIONS * width, width))
    for index in range(config.depth):
        prefix = f"blocks.{index}."
        shapes.update((prefix + name, shape) for name, shape in _block(config))
    shapes["final_layer.norm_final.weight"] = (width,)
    shapes.update(_linear("final_layer.linear", patch * patch * config.latent_channels, width))
    shapes.update(_linear("final_layer.adaLN_modulation.1", 2 * width, width))
    shapes["layer_norm.weight"] = shapes["layer_norm.bias"] = (config.enc_dim,)
    shapes.update(_linear("mlp_ca.fc1", config.encdim_ratio * width, config.enc_dim))
    shapes.update(_linear("mlp_ca.fc2", width, config.encdim_ratio * width))
    shapes.update(_time_embedding("r_embedder", width))
    return shapes


def block_linears(config: VosrConfig) -> dict[str, LinearShape]:
    """Every linear layer inside the transformer blocks, in network order: name -> shape.

    These are the layers that quantization is about. Each has a bias. The time block, the features'
    two layers and the output are shared by all blocks and stay in 16 bits.
    """
    return {
        name.removesuffix(".weight"): LinearShape(*shape)
        for name, shape in tensor_shapes(config).items()
        if name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2
    }


def latent_size(config: VosrConfig) -> LatentSize:
    """What the patches allow."""
    return LatentSize(
        patch_size=config.patch_size,
        largest_tile=_LARGEST_TILES * config.resolution // VAE_FACTOR,
        channels=config.latent_channels,
    )


def condition_shapes(config: VosrConfig, tokens: int) -> dict[str, Shape]:
    """Shapes of what the network is given beside latents and time, by part.

    The picture's features, and where a step ends, as a timestep.
    """
    return {"embeds": (tokens, config.enc_dim), "pooled": (1,)}


def _linear(name: str, out_features: int, in_features: int) -> list[tuple[str, Shape]]:
    return [(f"{name}.weight", (out_features, in_features)), (f"{name}.bias", (out_features,))]


def _time_embedding(name: str, width: int) -> list[tuple[str, Shape]]:
    return [
        *_linear(f"{name}.mlp.0", width, TIME_WAVES),
        *_linear(f"{name}.mlp.2", width, width),
    ]


def _block(config: VosrConfig) -> Iterator[tuple[str, Shape]]:
    width, hidden, head = config.dim, config.hidden_features, config.head_dim
    yield "scale_shift_table", (_MODULATIONS, width)
    yield "norm1.weight", (width,)
    yield "norm2.weight", (width,)
    yield from _linear("attn.qkv", 3 * width, width)
    yield "attn.q_norm.weight", (head,)
    yield "attn.k_norm.weight", (head,)
    yield from _linear("attn.proj", width, width)
    yield from _linear("mlp.w12", 2 * hidden, width)
    yield from _linear("mlp.w3", width, hidden)
    for linear in ("q_linear", "k_linear", "v_linear", "proj"):
        yield from _linear(f"cross_attn.{linear}", width, width)
    yield "cross_attn.q_norm.weight", (head,)
    yield "cross_attn.k_norm.weight", (head,)
