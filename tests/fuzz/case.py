"""What is fuzzed: a target makes cases, and runs them."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from schemas.errors import QPackError

EQUAL = "equal"
"""The result is that of the unmutated input."""
CHANGED = "changed"
"""The input means something else now, and the result is well-formed."""


class WrongResultError(AssertionError):
    """A result that is neither equal nor well-formed."""


@dataclass(frozen=True)
class Case:
    """One mutated input.

    Attributes:
        what: what was mutated.
        files: relative path -> content of the files that differ from the valid input.
        option: what else the run depends on, as the target understands it.
    """

    what: str
    files: dict[str, bytes]
    option: str = ""


class Target(Protocol):
    """A reader of files, with valid inputs to mutate."""

    name: str
    errors: tuple[type[QPackError], ...]
    """How it may refuse an input."""

    def prepare(self, folder: Path) -> None:
        """Write valid inputs into ``folder``, an empty one, and run them once."""

    def make(self, rng: Random, index: int) -> Case:
        """Mutate one of them: the case of that number, with all randomness from ``rng``."""

    def run(self, case: Case) -> str:
        """Read the mutated input, and give `EQUAL` or `CHANGED`.

        Raises:
            QPackError: it was refused.
            WrongResultError: it was accepted, and the result is wrong.
        """
