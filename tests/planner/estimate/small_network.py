"""A configuration with everything DiT4SR has, small enough to make its network."""

from torch import nn

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR

SMALL = TransformerConfig(
    num_layers=6,
    dual_attention_layers=(0, 1, 2),
    num_attention_heads=3,
    attention_head_dim=64,
    caption_projection_dim=192,
    joint_attention_dim=40,
    pooled_projection_dim=24,
    sample_size=16,
    pos_embed_max_size=16,
)


def block_linears_of(network: DiT4SR) -> dict[str, nn.Linear]:
    """Name -> module of every block linear, from the network itself."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks.")
    }
