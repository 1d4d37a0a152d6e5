"""Where a layer stands: its block, and what it is in there."""

import re
from typing import NamedTuple

_IN_A_BLOCK = re.compile(r"[^.]+\.(\d+)\.(.+)")


class Place(NamedTuple):
    """Position of a layer in its network.

    Attributes:
        block: number of the block; None outside of all blocks.
        kind: the layer's name within its block, which layers of one kind share.
    """

    block: int | None
    kind: str


def place_of(layer: str) -> Place:
    """Read the place from a name such as ``blocks.3.attn.to_q``: block 3, kind ``attn.to_q``."""
    found = _IN_A_BLOCK.fullmatch(layer)
    return Place(None, layer) if found is None else Place(int(found[1]), found[2])
