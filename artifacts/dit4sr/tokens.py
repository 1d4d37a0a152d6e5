"""How many tokens a forward pass takes through every layer of DiT4SR, by the paper's rules.

As Q-DiT4SR counts: layers included that the forward pass computes in vain or not at all.
"""

from collections.abc import Mapping

from schemas.errors import UsageError
from schemas.transformer_config import TransformerConfig


def count_tokens(
    config: TransformerConfig, resolution_px: int, vae_factor: int, text_tokens: int
) -> dict[str, int]:
    """Tokens of every stream for a square image with sides of ``resolution_px`` pixels.

    Args:
        config: of the network.
        resolution_px: side of the image.
        vae_factor: image pixels per latent pixel, along one side.
        text_tokens: of the prompt.

    Raises:
        UsageError: the image does not divide into latent pixels and patches, or no token is left.
    """
    pixels_per_token = vae_factor * config.patch_size
    if resolution_px < pixels_per_token or resolution_px % pixels_per_token:
        nearest = max(1, round(resolution_px / pixels_per_token)) * pixels_per_token
        raise UsageError(
            f"an image of {resolution_px} px does not divide into tokens of {pixels_per_token} px",
            hint=f"the nearest size that does is {nearest} px",
        )
    if text_tokens < 0:
        raise UsageError(f"{text_tokens} text tokens", hint="give 0 or more")
    per_stream = (resolution_px // pixels_per_token) ** 2
    return {"image": per_stream, "control": per_stream, "text": text_tokens}


def tokens_through(name: str, streams: Mapping[str, int]) -> int:
    """Tokens that the paper counts through the block linear called ``name``."""
    _, _, module, *layer = name.split(".")  # transformer_blocks, index, module, layer...
    if module in ("norm1", "norm1_context"):
        return 1  # modulation reads the conditioning vector, one per image
    if layer[0].startswith("add_") or layer[0] == "to_add_out":
        return 0 if module == "attn2" else streams["text"]  # the second attention sees no text
    if module == "ff_context":
        return streams["text"]
    if layer[0].endswith("_control"):
        return streams["control"]
    if layer[0] == "to_out":
        return streams["image"]
    return streams["image"] + streams["control"]
