"""Layers grouped by what they do, for tables and plots."""

import re

_KINDS = {
    r"norm1\.linear": "modulation",
    r"norm1_context\.linear": "modulation, text",
    r"attn2?\.to_[qkv]": "q k v",
    r"attn2?\.to_[qkv]_control": "q v, control",
    r"attn2?\.add_[qkv]_proj": "q k v, text",
    r"attn2?\.to_out\.0": "attention out",
    r"attn2?\.to_out_control": "attention out, control",
    r"attn2?\.to_add_out": "attention out, text",
    r"ff\.net\.0\.proj": "feed-forward in",
    r"ff\.net\.2": "feed-forward out",
    r"ff_context\.net\.0\.proj": "feed-forward in, text",
    r"ff_context\.net\.2": "feed-forward out, text",
}
KINDS = tuple(_KINDS.values())


def kind_of(layer: str) -> str:
    """The kind of a block linear.

    Raises:
        ValueError: it is none.
    """
    part = re.sub(r"^transformer_blocks\.\d+\.", "", layer)
    for pattern, kind in _KINDS.items():
        if re.fullmatch(pattern, part):
            return kind
    raise ValueError(f"{layer} is no linear layer of a block")


def block_of(layer: str) -> int:
    """Number of the block that a layer stands in."""
    return int(layer.split(".")[1])
