"""Names and shapes of every tensor of a DiT4SR network, from its configuration alone.

Reading a pack needs them before anything is allocated, and this layer of the project may not
import the network; a test holds the two equal.
"""

from collections.abc import Iterator

from artifacts.dit4sr.config import TransformerConfig
from artifacts.family import LatentSize, LinearShape, Modulations, Shape

POSITION_TABLE = "pos_embed.pos_embed"
"""A buffer, not a parameter: sin-cos values that can be rebuilt at load."""

_TIMESTEP_CHANNELS = 256
"""Width of the sinusoidal timestep embedding, a constant of Stable Diffusion 3."""
_FEED_FORWARD_GROWTH = 4
_CONDITIONER = "time_text_embed."
_MODULATION = (".norm1.linear", ".norm1_context.linear")
_FINAL_MODULATION = "norm_out.linear"


def tensor_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """Every tensor of the full network's state dict, in network order: name -> shape."""
    width, patch = config.hidden_size, config.patch_size
    shapes: dict[str, Shape] = {
        POSITION_TABLE: (1, config.pos_embed_max_size**2, width),
        "pos_embed.proj.weight": (width, config.in_channels, patch, patch),
        "pos_embed.proj.bias": (width,),
    }
    outer_linears = [
        ("time_text_embed.timestep_embedder.linear_1", width, _TIMESTEP_CHANNELS),
        ("time_text_embed.timestep_embedder.linear_2", width, width),
        ("time_text_embed.text_embedder.linear_1", width, config.pooled_projection_dim),
        ("time_text_embed.text_embedder.linear_2", width, width),
        ("context_embedder", width, config.joint_attention_dim),
    ]
    for name, out_features, in_features in outer_linears:
        shapes.update(_linear(name, out_features, in_features))
    for index in range(config.num_layers):
        prefix = f"transformer_blocks.{index}."
        shapes.update((prefix + name, shape) for name, shape in _block(config, index))
    shapes.update(_linear("norm_out.linear", 2 * width, width))
    shapes.update(_linear("proj_out", patch * patch * config.out_channels, width))
    return shapes


def block_linears(config: TransformerConfig) -> dict[str, LinearShape]:
    """Every linear layer inside the transformer blocks, in network order: name -> shape.

    These are the layers that quantization is about. Each has a bias.
    """
    return {
        name.removesuffix(".weight"): LinearShape(*shape)
        for name, shape in tensor_shapes(config).items()
        if name.startswith("transformer_blocks.") and len(shape) == 2
    }


def unread_tensors(config: TransformerConfig, variant: str) -> frozenset[str]:
    """Names of the tensors that no forward pass reads, so that a pack may leave them out.

    - The second attention has no text, so nothing reads its text projections and norms.
    - The variants q and f overwrite the control keys with the image's: ``to_k_control`` is unread.
    - The last block returns no text, so nothing reads its text queries. Its control stream is
      read: it still reaches the image through the feed-forward's convolution.
    """
    last = f"transformer_blocks.{config.num_layers - 1}.attn."

    def unread(name: str) -> bool:
        return (
            ".attn2.add_" in name
            or ".attn2.to_add_out." in name
            or ".attn2.norm_added_" in name
            or (variant != "r1" and ".to_k_control." in name)
            or name.startswith((last + "add_q_proj.", last + "norm_added_q."))
        )

    return frozenset(filter(unread, tensor_shapes(config)))


def modulations(config: TransformerConfig) -> Modulations:
    """The AdaLN layers of the blocks and of the output, and the embedding that they alone read."""
    shapes = tensor_shapes(config)
    layers = {
        layer: LinearShape(*shape)
        for name, shape in shapes.items()
        if (layer := name.removesuffix(".weight")) != name
        and (layer.endswith(_MODULATION) or layer == _FINAL_MODULATION)
    }
    tensors = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    tensors.update(name for name in shapes if name.startswith(_CONDITIONER))
    return Modulations(layers, frozenset(tensors))


def latent_size(config: TransformerConfig) -> LatentSize:
    """What the patches and the position table allow."""
    return LatentSize(
        patch_size=config.patch_size,
        largest_tile=config.patch_size * config.pos_embed_max_size,
        channels=config.in_channels,
    )


def prompt_shapes(config: TransformerConfig, tokens: int) -> dict[str, Shape]:
    """Shapes of one prompt's embeddings, by part: per token, and pooled."""
    return {
        "embeds": (tokens, config.joint_attention_dim),
        "pooled": (config.pooled_projection_dim,),
    }


def _linear(name: str, out_features: int, in_features: int) -> list[tuple[str, Shape]]:
    return [(f"{name}.weight", (out_features, in_features)), (f"{name}.bias", (out_features,))]


def _block(config: TransformerConfig, index: int) -> Iterator[tuple[str, Shape]]:
    width = config.hidden_size
    inner = _FEED_FORWARD_GROWTH * width
    dual, last = index in config.dual_attention_layers, index == config.num_layers - 1
    yield from _linear("norm1.linear", (9 if dual else 6) * width, width)
    yield from _linear("norm1_context.linear", (2 if last else 6) * width, width)
    yield from _attention(config, "attn", text_output=not last)
    if dual:
        yield from _attention(config, "attn2", text_output=True)
    yield from _linear("ff.net.0.proj", inner, width)
    yield from _linear("ff.net.2", width, inner)
    yield "ff.control_conv.weight", (inner, 1, 3, 3)
    yield "ff.control_conv.bias", (inner,)
    if not last:
        yield from _linear("ff_context.net.0.proj", inner, width)
        yield from _linear("ff_context.net.2", width, inner)


def _attention(
    config: TransformerConfig, name: str, *, text_output: bool
) -> Iterator[tuple[str, Shape]]:
    width = config.hidden_size
    linears = ["to_q", "to_k", "to_v", "to_out.0"]
    linears += [f"{linear}_control" for linear in ("to_q", "to_k", "to_v", "to_out")]
    linears += ["add_q_proj", "add_k_proj", "add_v_proj"]
    for linear in [*linears, "to_add_out"] if text_output else linears:
        yield from _linear(f"{name}.{linear}", width, width)
    for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield f"{name}.{norm}.weight", (config.attention_head_dim,)
