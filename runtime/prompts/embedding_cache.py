"""Embeddings of texts, kept on disk so that no text is encoded twice by the same encoders.

    ~/.cache/qdit4sr/prompts/<sha256 of encoders and text>.safetensors

A file holds ``embeds`` and ``pooled`` (2.7 MB with the published encoders) and a hash of both; one
that is damaged counts as missing. The folder may be emptied at any time. Where it cannot be
written, embeddings stay in memory.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from artifacts.files.hashing import sha256_of
from artifacts.files.safetensors_io import Entry, read_header, tensor_bytes, write_safetensors
from artifacts.files.user_cache import user_cache
from artifacts.files.whole_file import replacing
from runtime.prompts.encoders import ENCODER_FOLDERS, TextEmbedding, encode_texts
from schemas.errors import PackError

ENCODED_AT_ONCE = 256
"""Texts whose embeddings are in memory together, half a gigabyte with the published encoders."""
HASHED_BYTES = 16 * 2**20
"""Files of encoders up to this size are told apart by content, larger ones by size and time."""
_VERSION = 1


class EncodedTexts(Mapping[str, TextEmbedding]):
    """Texts that were encoded: a mapping that reads each embedding when it is asked for.

    Args:
        files: text -> file of the cache.
        in_memory: text -> embedding, of those that could not be written.
    """

    def __init__(self, files: Mapping[str, Path], in_memory: Mapping[str, TextEmbedding]) -> None:
        self._files = files
        self._in_memory = in_memory

    def __getitem__(self, text: str) -> TextEmbedding:
        if text in self._in_memory:
            return self._in_memory[text]
        return _read(self._files[text])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._files, **self._in_memory})

    def __len__(self) -> int:
        return len({**self._files, **self._in_memory})


def encode_cached(folder: Path, texts: Sequence[str]) -> EncodedTexts:
    """Embeddings of ``texts`` by the encoders of ``folder``; encodes those that the cache lacks.

    Raises:
        UsageError, CheckpointError: as `encode_texts`.
    """
    cache = user_cache()
    if cache is None:
        return EncodedTexts({}, dict(zip(texts, encode_texts(folder, texts), strict=True)))
    encoders = encoders_identity(folder)
    files = {text: cache / "prompts" / f"{_key(encoders, text)}.safetensors" for text in texts}
    missing = [text for text, file in files.items() if not _is_sound(file)]
    in_memory = {}
    for start in range(0, len(missing), ENCODED_AT_ONCE):
        chunk = missing[start : start + ENCODED_AT_ONCE]
        for text, embedding in zip(chunk, encode_texts(folder, chunk), strict=True):
            try:
                _write(files[text], embedding)
            except OSError:  # a cache is a convenience
                in_memory[text] = embedding
    kept = {text: file for text, file in files.items() if text not in in_memory}
    return EncodedTexts(kept, in_memory)


def encoders_identity(folder: Path) -> str:
    """What tells the encoders of a folder from others, as SHA-256; reads no large file."""
    facts: list[object] = [_VERSION]
    for name in ENCODER_FOLDERS:
        for file in sorted(path for path in (folder / name).rglob("*") if path.is_file()):
            status = file.stat()
            small = status.st_size <= HASHED_BYTES
            content = sha256_of(file) if small else [status.st_size, status.st_mtime_ns]
            facts.append([file.relative_to(folder).as_posix(), content])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _key(encoders: str, text: str) -> str:
    return hashlib.sha256(json.dumps([encoders, text]).encode()).hexdigest()


def _digest(embedding: TextEmbedding) -> str:
    digest = hashlib.sha256(tensor_bytes(embedding.embeds))
    digest.update(tensor_bytes(embedding.pooled))
    return digest.hexdigest()


def _write(file: Path, embedding: TextEmbedding) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = {"embeds": Entry.of(embedding.embeds), "pooled": Entry.of(embedding.pooled)}
    with replacing(file) as partial:
        write_safetensors(partial, entries, {"sha256": _digest(embedding)})


def _read(file: Path) -> TextEmbedding:
    """Read one file.

    Raises:
        PackError: it is missing or damaged.
    """
    header = read_header(file)
    if set(header.tensors) != {"embeds", "pooled"}:
        raise PackError(f"{file}: not an embedding of a prompt")
    embedding = TextEmbedding(header.read("embeds"), header.read("pooled"))
    if header.metadata.get("sha256") != _digest(embedding):
        raise PackError(f"{file}: content does not match its hash")
    return embedding


def _is_sound(file: Path) -> bool:
    try:
        _read(file)
    except PackError:
        return False
    return True
