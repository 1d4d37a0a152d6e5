"""How a pack on the hub is named: ``org/name``, ``org/name@revision``, or ``hf://`` before either.

Nothing heavy is imported: every command that takes a pack looks here first.
"""

import re
from pathlib import Path
from typing import NamedTuple

from schemas.errors import UsageError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_NAME = re.compile(rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[^\s@]+))?")
_SCHEME = re.compile(r"hf:/*")
"""A path object makes one slash of two, and none of a last one."""


class HubName(NamedTuple):
    """A repository, and what of its history.

    Attributes:
        repository: ``org/name``.
        revision: a branch, a tag or a commit; None for the hub's default branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def hub_name(path: Path) -> HubName | None:
    """The pack on the hub that ``path`` names; None where it is a place on this machine.

    What exists here is meant before anything elsewhere, and so is a path into a folder that exists:
    a mistyped name in it must not be looked for on the network.

    Raises:
        UsageError: it begins with ``hf:`` and is no name.
    """
    text = path.as_posix()
    named = _SCHEME.match(text)
    found = _NAME.fullmatch(text[named.end() :] if named else text)
    if named:
        if found is None:
            raise UsageError(f"{text}: no name on the hub", hint="hf://org/name[@revision]")
    elif found is None or path.exists() or Path(path.parts[0]).exists() or path.suffix == ".qpack":
        return None
    return HubName(found["repository"], found["revision"])


def check_repository(name: str) -> None:
    """Make sure that ``name`` can be a repository's.

    Raises:
        UsageError: it is not ``org/name``.
    """
    if _REPOSITORY.fullmatch(name) is None:
        raise UsageError(f"{name!r}: a repository is named org/name")
