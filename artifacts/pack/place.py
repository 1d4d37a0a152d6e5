"""Whether a path is a pack's, and what it is otherwise: looks at names, opens nothing.

Nothing heavy is imported, so that a mistyped path is answered at once.
"""

from itertools import islice
from pathlib import Path

from artifacts.pack.file_names import MANIFEST
from schemas.errors import PackError
from schemas.places import absent

SEARCHED_ENTRIES = 1000
SHOWN_NAMES = 5
_CHECKPOINT = "a checkpoint goes to `qplan build`, or to `--full-precision`"


def check_is_pack(path: Path) -> None:
    """Make sure that ``path`` is a folder with a pack's manifest.

    Raises:
        PackError: it is not; says what it is, and where that goes.
    """
    try:
        if (path / MANIFEST).is_file():
            return
        if not path.exists():
            message, hint = absent(path, "pack")
            raise PackError(message, hint=hint)
        if not path.is_dir():
            raise _not_a_folder(path)
        names = sorted(entry.name for entry in islice(path.iterdir(), SEARCHED_ENTRIES))
        packs = [name for name in names if (path / name / MANIFEST).is_file()]
    except OSError as cause:
        raise PackError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if packs:
        more = ", ..." if len(packs) > SHOWN_NAMES else ""
        raise PackError(
            f"{path}: not a pack, but a folder of packs: {', '.join(packs[:SHOWN_NAMES])}{more}",
            hint="name one of them",
        )
    if MANIFEST in names:
        raise PackError(f"{path}: {MANIFEST} is not a regular file")
    weights = [name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))]
    if "transformer" in names or "model_index.json" in names or weights:
        raise PackError(f"{path}: not a pack: there is no {MANIFEST}", hint=_CHECKPOINT)
    raise PackError(f"{path}: there is no {MANIFEST}", hint=f"is it a pack? {_CHECKPOINT}")


def _not_a_folder(path: Path) -> PackError:
    if (path.parent / MANIFEST).is_file():
        return PackError(f"{path}: a file of a pack", hint=f"name its folder, {path.parent}")
    return PackError(f"{path}: not a pack: it is not a directory", hint=_CHECKPOINT)
