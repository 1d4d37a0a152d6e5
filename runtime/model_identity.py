"""What tells one model from another, found in a moment and without reading its weights."""

import contextlib
import hashlib
import json
from pathlib import Path

from artifacts.pack.file_names import MANIFEST
from schemas.errors import PackError
from schemas.json_io import read_json_file

_PROBED_BYTES = 64 * 1024
_SHOWN_DIGITS = 16


def pack_facts(pack: Path) -> tuple[str, dict[str, object]]:
    """A pack's identity, its own checksum, and its sampling defaults, as the manifest has them.

    Of a manifest that cannot be read there is neither: whoever loads the pack says why.
    """
    try:
        content = read_json_file(pack / MANIFEST, where=str(pack / MANIFEST), error=PackError)
    except PackError:
        content = None
    facts = content if isinstance(content, dict) else {}
    sampling = facts.get("sampling")
    return (
        f"pack {str(facts.get('checksum'))[:_SHOWN_DIGITS]}",
        sampling if isinstance(sampling, dict) else {},
    )


def checkpoint_identity(path: Path) -> str:
    """A checkpoint's identity: size, beginning and end of each of its files.

    What cannot be read is left out: whoever loads the checkpoint says why.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        with contextlib.suppress(OSError), file.open("rb") as opened:
            size = file.stat().st_size
            digest.update(json.dumps([name, size]).encode())
            digest.update(opened.read(_PROBED_BYTES))
            opened.seek(max(0, size - _PROBED_BYTES))
            digest.update(opened.read(_PROBED_BYTES))
    return f"checkpoint {digest.hexdigest()[:_SHOWN_DIGITS]}"
