"""Which files of a folder are a model's weights.

Names are looked at, and nothing is opened but the index that joins shards. Hidden files are never
weights: macOS leaves a ``._NAME`` beside every NAME on disks of other systems.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from schemas.errors import CheckpointError
from schemas.json_io import read_json_file

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "ema_model.safetensors",
    "model.safetensors",
)
"""What diffusers, trainers that keep an average, and transformers call a model's weights; preferred
over any other name, in this order."""
INDEX_SUFFIX = ".index.json"
TRANSFORMER_FOLDER = "transformer"
PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
CONVERT_HINT = "convert it where you trust it: load it, then safetensors.torch.save_file"
SHOWN_NAMES = 3
SEARCHED_FOLDERS = 1000
"""How many folders are looked into for a hint."""

# diffusers names the index of a variant ``....safetensors.index.fp16.json``.
_INDEX = re.compile(r".+\.safetensors\.index(\.[A-Za-z0-9_-]+)?\.json")


def has_weights(folder: Path) -> bool:
    """Whether there are ``.safetensors`` files in ``folder``, which need not exist."""
    return folder.is_dir() and any(
        file.suffix == ".safetensors" and not file.name.startswith(".") for file in folder.iterdir()
    )


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, shards in name order, each a plain name inside the folder.

    Of several sets of weights (diffusers keeps ``.fp16.`` variants side by side) the one with the
    standard name is taken; without it, there must be one only.

    Raises:
        CheckpointError: there are none, several sets, or pickles alone; a shard is missing, or its
            name leads out of the folder.
    """
    found = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
    for name in WEIGHT_FILES:
        if name + INDEX_SUFFIX in found:
            return _shards(folder, folder / (name + INDEX_SUFFIX))
        if name in found:
            return [_inside(folder, name)]
    sets = sorted(name for name in found if _INDEX.fullmatch(name))
    sets = sets or sorted(name for name in found if name.endswith(".safetensors"))
    if len(sets) == 1:
        (name,) = sets
        return _shards(folder, folder / name) if _INDEX.fullmatch(name) else [folder / name]
    if sets:
        raise CheckpointError(
            f"{folder}: {len(sets)} weight files, and none is called {WEIGHT_FILES[0]}"
            f" ({_shown(sets)})",
            hint="name one file, or add the index that joins them",
        )
    raise _no_weights(folder, found)


def _no_weights(folder: Path, found: Iterable[str]) -> CheckpointError:
    pickles = sorted(name for name in found if Path(name).suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        return CheckpointError(
            f"{folder}: only pickle weights ({pickles[0]}), which can run code when loaded"
            " and are not read",
            hint=CONVERT_HINT,
        )
    models = sorted(_folders_with_weights(folder))
    if models:
        return CheckpointError(
            f"{folder}: no .safetensors weights here, but in {_shown(models, 8)}",
            hint="name one of these folders",
        )
    return CheckpointError(f"{folder}: no .safetensors weights here or in {TRANSFORMER_FOLDER}/")


def _folders_with_weights(folder: Path) -> Iterator[str]:
    for entry in islice(folder.iterdir(), SEARCHED_FOLDERS):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        for place in (entry, entry / TRANSFORMER_FOLDER):
            # What cannot be listed is no help to name.
            names = [file.name for file in _listed(place)]
            if any(name.endswith(".safetensors") and name[0] != "." for name in names):
                yield entry.name
                break


def _listed(folder: Path) -> list[Path]:
    try:
        return list(islice(folder.iterdir(), SEARCHED_FOLDERS))
    except OSError:
        return []


def _shards(folder: Path, index: Path) -> list[Path]:
    content = read_json_file(index, where=str(index), error=CheckpointError)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map names something that is not a file")
    files = [_inside(folder, name) for name in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(files)} shards are missing:"
            f" {_shown(missing, SEARCHED_FOLDERS)}",
            hint="download the missing files",
        )
    return files


def _inside(folder: Path, name: str) -> Path:
    """``folder / name``, refusing names that lead out of the folder.

    Links are followed wherever they point: hub caches link every file to a blob store beside the
    snapshot, and people link large files to another disk. A name, however, comes from a file, and a
    file must not choose what else is read.
    """
    pure = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name
    if not plain or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise CheckpointError(f"{folder}: weight file name {name[:200]!r} leads out of the folder")
    return folder / name


def _shown(names: list[str], count: int = SHOWN_NAMES) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
