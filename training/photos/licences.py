"""Which licence a Debian package states for a file.

The copyright file (machine-readable format, DEP-5) is a list of stanzas; one with ``Files:`` gives
patterns (``*`` and ``?`` match anything, also ``/``) and a licence, and the last stanza that
matches a file counts. Packages are sometimes rebuilt with pictures converted to another format
while the copyright file keeps the old names, so extensions are not compared.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

MOST_HOLDERS = 3


@dataclass(frozen=True)
class Licence:
    """What the package says of one file.

    Attributes:
        name: short name of the licence, for example ``CC-BY-4.0``.
        holder: copyright holders, one a line in the file; of many, the first.
    """

    name: str
    holder: str


class CopyrightFile:
    """A parsed DEP-5 copyright file."""

    def __init__(self, text: str) -> None:
        self._stanzas: list[tuple[list[str], Licence]] = []
        for stanza in re.split(r"\n\s*\n", text):
            fields = _fields(stanza)
            if "files" in fields and "license" in fields:
                licence = Licence(
                    name=fields["license"].split("\n")[0].strip(),
                    holder=_holder(fields.get("copyright", "")),
                )
                self._stanzas.append((fields["files"].split(), licence))

    def of(self, path: str) -> Licence:
        """The licence of ``path``, relative to the source package's root.

        Raises:
            LookupError: no stanza matches.
        """
        name = _without_extension(path)
        for patterns, licence in reversed(self._stanzas):
            if any(fnmatchcase(name, _without_extension(pattern)) for pattern in patterns):
                return licence
        raise LookupError(f"no licence is stated for {path}")


def _fields(stanza: str) -> dict[str, str]:
    """Field names in lower case; continuation lines start with a blank."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            fields[name] = fields.get(name, "") + "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()
    return fields


def _holder(text: str) -> str:
    """Holders without mail addresses; those of a whole project are cut after the first."""
    lines = [" ".join(re.sub(r"<[^>]*>", "", line).split()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    return "; ".join(lines) if len(lines) <= MOST_HOLDERS else f"{lines[0]}; and others"


def _without_extension(path: str) -> str:
    """``a/b.jpg`` -> ``a/b``; a name that ends in ``*`` has no extension to take off."""
    pure = PurePosixPath(path)
    return path if path.endswith("*") and "." not in pure.name else str(pure.with_suffix(""))
