"""The list of gathered photos: where each comes from, its licence, its bytes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One photo.

    Attributes:
        key: ``group/name``, as ``selection`` has it.
        held_out: kept for testing, never trained on.
        package: Debian package and version.
        file: path inside the package, and inside the Qt resource file where there is one.
        licence: as the package's copyright file states it.
        holder: of the copyright.
        bytes: size of the picture's file.
        sha256: of the picture's file.
        stored_px: height and width after shrinking, as the cache holds it.
    """

    key: str
    held_out: bool
    package: str
    file: str
    licence: str
    holder: str
    bytes: int
    sha256: str
    stored_px: tuple[int, int]


def write_manifest(entries: list[Entry], folder: Path) -> None:
    """Write ``folder/manifest.json``."""
    content = [asdict(entry) for entry in entries]
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> list[Entry]:
    """Read ``folder/manifest.json``."""
    content = json.loads((folder / FILE_NAME).read_text())
    return [Entry(**{**entry, "stored_px": tuple(entry["stored_px"])}) for entry in content]
