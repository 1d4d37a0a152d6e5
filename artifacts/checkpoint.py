"""A source checkpoint, read one tensor at a time: a diffusers folder or one ``.safetensors`` file.

Opening reads headers only: names, shapes and dtypes are checked against the architecture before
any weight is touched. Both sides use this: the planner to build packs, the runtime to run the
unquantized network for comparison.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from artifacts.checkpoint_config import config_from_shapes
from artifacts.layout import POSITION_TABLE, tensor_shapes
from artifacts.safetensors_io import CHUNK_BYTES, Header, read_header
from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SourceFile
from schemas.transformer_config import TransformerConfig

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
FLOAT_DTYPES = frozenset({"F16", "BF16", "F32", "F64"})
QUANTIZED_PARTS = (
    "codes",
    "qweight",
    "weight_scale",
    "scale_weight",
    "weight_zero_point",
    "absmax",
)
"""Last parts of tensor names that other quantizers, and our packs, write."""
SHOWN_NAMES = 3
CONVERT_HINT = "convert it where you trust it: load it, then safetensors.torch.save_file"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of a known architecture.

    Attributes:
        path: what the user named.
        config: shapes of the network.
        headers: of every weight file, in name order.
        parts_dir: the diffusers folder that may hold a VAE and a scheduler beside the
            transformer; None for a bare file.
    """

    path: Path
    config: TransformerConfig
    headers: tuple[Header, ...]
    parts_dir: Path | None

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the network."""
        present = self._places()
        return [name for name in tensor_shapes(self.config) if name in present]

    @property
    def weight_bytes(self) -> int:
        """Size of all tensors as they are stored, in bytes."""
        return sum(info.nbytes for header in self.headers for info in header.tensors.values())

    def tensor(self, name: str) -> Tensor:
        """Read one tensor in its stored dtype.

        Raises:
            CheckpointError: it holds NaN or an infinity, or its file changed; names the tensor.
            KeyError: there is no such tensor.
        """
        tensor = self._places()[name].read(name, error=CheckpointError)
        if not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{self.path}: tensor {name} holds {bad} NaN or infinite values",
                hint="the checkpoint is damaged or overflowed when it was converted",
            )
        return tensor

    def source_files(self) -> Iterator[SourceFile]:
        """Name, size and sha256 of every weight file; reads all of them once."""
        for header in self.headers:
            digest = hashlib.sha256()
            with header.path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
            yield SourceFile(
                name=header.path.name, sha256=digest.hexdigest(), bytes=header.identity.bytes
            )

    def _places(self) -> dict[str, Header]:
        return {name: header for header in self.headers for name in header.tensors}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint: its folder (``transformer/`` inside or the folder itself) or its file.

    Raises:
        CheckpointError: missing, truncated, a pickle, a pointer or web page in its place, a shard
            missing or outside the folder, another architecture (first differing names), or
            already quantized.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.is_dir():
        folder = _transformer_dir(path)
        files = _weight_files(folder)
        config_file = folder / "config.json"
        config = None
        if config_file.exists():
            content = read_json_file(config_file, where=str(config_file), error=CheckpointError)
            config = _config_from_json(content, str(config_file))
        parts_dir: Path | None = path if folder != path else path.parent
    else:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise CheckpointError(
                f"{path}: pickle files can run code when loaded and are not read",
                hint=CONVERT_HINT,
            )
        files, config, parts_dir = [path], None, None

    headers = tuple(read_header(file, error=CheckpointError) for file in files)
    shapes: dict[str, tuple[int, ...]] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in shapes:
                raise CheckpointError(f"{header.path}: tensor {name} is in another shard too")
            shapes[name] = info.shape
    _refuse_quantized(path, headers)
    if config is None:
        config = config_from_shapes(path, shapes, headers)
    _check_architecture(path, shapes, config)
    return Checkpoint(path, config, headers, parts_dir)


def _transformer_dir(path: Path) -> Path:
    if (path / "manifest.json").exists() and (path / "bit_grid.json").exists():
        raise CheckpointError(
            f"{path}: this is a pack, already quantized", hint="build from its source checkpoint"
        )
    inner = path / "transformer"
    return inner if inner.is_dir() else path


def _config_from_json(content: object, where: str) -> TransformerConfig:
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: not a JSON object")
    if "quantization_config" in content:
        raise CheckpointError(
            f"{where}: already quantized (it has a quantization_config)",
            hint="build from the original weights",
        )
    kept = {key: value for key, value in content.items() if not key.startswith("_")}
    return validate(TransformerConfig, kept, where=where, error=CheckpointError)


def _weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, shards in name order, each a plain name inside the folder."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        return _shards(folder, indexes[0])
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [_inside(folder, name)]
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return [_inside(folder, others[0].name)]
    if others:
        listed = ", ".join(file.name for file in others[:SHOWN_NAMES])
        raise CheckpointError(
            f"{folder}: {len(others)} weight files and no index that joins them ({listed}, ...)",
            hint="name one file, or add the index",
        )
    pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise CheckpointError(
            f"{folder}: only pickle weights ({pickles[0].name}), which can run code when loaded"
            " and are not read",
            hint=CONVERT_HINT,
        )
    raise CheckpointError(f"{folder}: no .safetensors weights here or in transformer/")


def _shards(folder: Path, index: Path) -> list[Path]:
    content = read_json_file(index, where=str(index), error=CheckpointError)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map names something that is not a file")
    names = sorted(set(weight_map.values()))
    files = [_inside(folder, name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(files)} shards are missing: {', '.join(missing)}",
            hint="download the missing files",
        )
    return files


def _inside(folder: Path, name: str) -> Path:
    """``folder / name``, refusing names and links that lead out of the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        raise CheckpointError(f"{folder}: weight file name {name!r} leads out of the folder")
    file = folder / name
    # Hub caches link every file to a blob store beside the snapshot: such links point into the
    # same model's cache, two levels up, and are how most people have the weights.
    root = folder.resolve()
    allowed = [root, *_hub_blobs(root)]
    if not any(file.resolve().is_relative_to(base) for base in allowed):
        raise CheckpointError(f"{folder}: weight file {name} is a link out of the folder")
    return file


def _hub_blobs(folder: Path) -> list[Path]:
    """The blob store of a hub cache, if ``folder`` lies in one: ``models--x/snapshots/rev/...``."""
    for parent in folder.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return [parent.parent / "blobs"]
    return []


def _refuse_quantized(path: Path, headers: tuple[Header, ...]) -> None:
    for header in headers:
        for name, info in header.tensors.items():
            if name.rsplit(".", 1)[-1] in QUANTIZED_PARTS or info.dtype not in FLOAT_DTYPES:
                raise CheckpointError(
                    f"{path}: already quantized (tensor {name} is {info.dtype})",
                    hint="build from the original 16- or 32-bit weights",
                )


def _check_architecture(
    path: Path, shapes: Mapping[str, tuple[int, ...]], config: TransformerConfig
) -> None:
    """The tensors must be exactly the network's; the position table may be absent."""
    expected = tensor_shapes(config)
    missing = [name for name in expected if name not in shapes and name != POSITION_TABLE]
    extra = sorted(name for name in shapes if name not in expected)
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"missing {', '.join(missing[:SHOWN_NAMES])} ({len(missing)} in all)")
        if extra:
            parts.append(f"unexpected {', '.join(extra[:SHOWN_NAMES])} ({len(extra)} in all)")
        raise CheckpointError(
            f"{path}: not a DiT4SR transformer: {'; '.join(parts)}",
            hint="name the transformer's own weights, not a whole pipeline in one file",
        )
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(shape)}, but the configuration says"
                f" {list(expected[name])}"
            )
