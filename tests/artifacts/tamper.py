"""Ways to damage a pack on purpose, and to make the damage pass the checks of sizes and hashes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.files.hashing import sha256_of
from schemas.json_io import dump_json, format_json
from schemas.manifest import Manifest

Json = dict[str, Any]


def reseal(pack: Path) -> None:
    """Make the manifest's sizes, hashes and checksum those of the files as they are now."""
    manifest = pack / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"] = {
        path.relative_to(pack).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in sorted(pack.rglob("*"))
        if path.is_file() and path not in (manifest, pack / "README.md")
    }
    names = [n for n in content["files"] if n.startswith("transformer") and n.endswith("tensors")]
    names += [n for n in content["files"] if n == "modulation.safetensors"]
    content["transformer_bytes"]["pack"] = sum(content["files"][n]["bytes"] for n in names)
    manifest.write_text(format_json(content))
    seal(pack)


def seal(pack: Path) -> None:
    """Make the manifest's checksum right, where the manifest is valid at all."""
    manifest = pack / "manifest.json"
    try:
        valid = Manifest.model_validate(json.loads(manifest.read_text()))
    except ValueError:
        return
    manifest.write_bytes(dump_json(valid.sealed()))


def edit_manifest(pack: Path, edit: Callable[[Json], object]) -> None:
    """Change the manifest's content; the checksum is made right again."""
    content = json.loads((pack / "manifest.json").read_text())
    edit(content)
    (pack / "manifest.json").write_text(format_json(content))
    seal(pack)


def edit_grid(pack: Path, edit: Callable[[Json], object]) -> None:
    """Change the grid's content; the manifest is made to vouch for it."""
    content = json.loads((pack / "bit_grid.json").read_text())
    edit(content)
    (pack / "bit_grid.json").write_text(format_json(content))
    reseal(pack)


def edit_header(path: Path, edit: Callable[[Json], object]) -> None:
    """Change the header of a safetensors file and leave the tensors' bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header)
    path.write_bytes(with_header(header, data[8 + length :]))


def with_header(header: Json | str, body: bytes) -> bytes:
    """A safetensors file from its two halves."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + body
