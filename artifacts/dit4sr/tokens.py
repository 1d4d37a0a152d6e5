"""How much a forward pass of DiT4SR computes: tokens through every layer, and attention.

As Q-DiT4SR counts: layers included that the forward pass computes in vain or not at all.
"""

from collections.abc import Mapping

from artifacts.dit4sr.config import TransformerConfig
from artifacts.family import AttentionWork


def streams(patches: int, text_tokens: int) -> dict[str, int]:
    """Tokens of every stream; the control stream has as many as the image."""
    return {"image": patches, "control": patches, "text": text_tokens}


def tokens_through(name: str, tokens: Mapping[str, int]) -> int:
    """Tokens that the paper counts through the block linear called ``name``."""
    _, _, module, *layer = name.split(".")  # transformer_blocks, index, module, layer...
    if module in ("norm1", "norm1_context"):
        return 1  # modulation reads the conditioning vector, one per image
    if layer[0].startswith("add_") or layer[0] == "to_add_out":
        return 0 if module == "attn2" else tokens["text"]  # the second attention sees no text
    if module == "ff_context":
        return tokens["text"]
    if layer[0].endswith("_control"):
        return tokens["control"]
    if layer[0] == "to_out":
        return tokens["image"]
    return tokens["image"] + tokens["control"]


def attention_work(config: TransformerConfig, tokens: Mapping[str, int]) -> AttentionWork:
    """Work of every query with every key, and of every probability with its value.

    The first attention of a block sees all streams, the second leaves out the text. As with the
    layers, what a pass computes in vain counts: the last block's text queries.
    """
    latent = tokens["image"] + tokens["control"]
    pairs = config.num_layers * (latent + tokens["text"]) ** 2
    pairs += len(config.dual_attention_layers) * latent**2
    return AttentionWork(pairs * config.hidden_size, pairs * config.hidden_size)
