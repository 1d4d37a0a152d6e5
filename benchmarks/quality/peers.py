"""Which outside peer makes a row's network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.quality import comfy, peer
from benchmarks.quality.peer import PeerStorage
from benchmarks.quality.rows import Row


@dataclass(frozen=True)
class Peer:
    """A package that quantizes layers by its own code.

    Attributes:
        package: its name.
        is_available: whether it is installed.
        version: of it.
        apply: network, names of layers, settings -> what they take; in place.
    """

    package: str
    is_available: Callable[[], bool]
    version: Callable[[], str]
    apply: Callable[[nn.Module, Sequence[str], Mapping[str, Any]], PeerStorage]


SDNQ = Peer("sdnq", peer.is_available, peer.sdnq_version, peer.apply_sdnq)
COMFY = Peer(comfy.PACKAGE, comfy.is_available, comfy.version, comfy.apply_comfy)


def peer_of(row: Row) -> Peer | None:
    """The peer of a row; None for a recipe."""
    if row.sdnq:
        return SDNQ
    return COMFY if row.comfy else None
