"""How long work tells how far it is."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Told about every layer and image of a build."""

    def track(self, items: Sequence[Item], stage: str) -> Iterable[Item]:
        """Yield ``items`` while showing ``stage`` and how many are done."""
        ...

    def note(self, text: str) -> None:
        """Say something about the item in work."""
        ...


class Silent:
    """No progress at all."""

    def track(self, items: Sequence[Item], stage: str) -> Iterable[Item]:
        """Yield ``items``."""
        return items

    def note(self, text: str) -> None:
        """Say nothing."""
