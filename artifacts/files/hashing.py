"""Hashes of files. Nothing heavy is imported: paths are checked before anything is."""

import hashlib
from pathlib import Path

CHUNK_BYTES = 8 * 2**20
"""How much is read, hashed or written at a time."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal; reads it in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
