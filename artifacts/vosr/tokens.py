"""How much a forward pass of VOSR computes: tokens through every layer, and attention."""

from collections.abc import Mapping

from artifacts.family import AttentionWork
from artifacts.vosr.config import VosrConfig

_OF_FEATURES = ("k_linear", "v_linear")


def streams(patches: int, feature_tokens: int) -> dict[str, int]:
    """Tokens of the latent, noise and picture in one, and of the picture's features."""
    return {"image": patches, "features": feature_tokens}


def tokens_through(name: str, tokens: Mapping[str, int]) -> int:
    """Tokens through the block linear called ``name``."""
    return tokens["features" if name.endswith(_OF_FEATURES) else "image"]


def attention_work(config: VosrConfig, tokens: Mapping[str, int]) -> AttentionWork:
    """Work of every query with every key, and of every probability with its value.

    Image tokens attend to each other, then to the features.
    """
    pairs = config.depth * tokens["image"] * (tokens["image"] + tokens["features"])
    return AttentionWork(pairs * config.dim, pairs * config.dim)
