"""Finished rows on disk, so that an interrupted comparison goes on where it stopped.

One JSON file per row, written whole or not at all. Its name holds a hash of everything that the
row's numbers depend on and that the row itself does not compute: change any of it and the row is
measured again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.files.whole_file import write_bytes
from schemas.json_io import format_json

FORMAT = 1
"""Raise when what is measured, or how, changes: older rows are then not read any more."""

Content = dict[str, Any]


def key_of(parts: Mapping[str, Any]) -> str:
    """Hash of JSON values and of `FORMAT`."""
    text = json.dumps({**parts, "format": FORMAT}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RowStore:
    """Rows in ``folder``, by name and key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: str) -> Path:
        """Where a row is, or will be."""
        safe = "".join(c if c.isalnum() or c in "-+." else "_" for c in name)
        return self.folder / f"{safe}.{key}.json"

    def load(self, name: str, key: str) -> Content | None:
        """A finished row, or None."""
        path = self.path(name, key)
        if not path.is_file():
            return None
        content: Content = json.loads(path.read_text())
        return content

    def save(self, name: str, key: str, content: Content) -> Content:
        """Keep a finished row, and return it as it will be read; a reader sees all or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(name, key)
        write_bytes(path, format_json(content).encode("utf-8"))
        stored: Content = json.loads(path.read_text())
        return stored

    def find(self, content_hash: str) -> Content | None:
        """A finished row whose network and sampling are the same, under whatever name."""
        for path in sorted(self.folder.glob("*.json")):
            content: Content = json.loads(path.read_text())
            if content.get("content") == content_hash:
                return content
        return None
