"""A source checkpoint, read one tensor at a time: a diffusers folder or one ``.safetensors`` file.

Opening reads headers only: names, shapes and dtypes are checked against the architecture before
any weight is touched. Both sides use this: the planner to build packs, the runtime to run the
unquantized network for comparison.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from torch import Tensor

from artifacts.family import Architecture, Config, Family, Shape, families
from artifacts.files.safetensors_io import FLOAT_DTYPES, FileIdentity, Header, read_header
from artifacts.pack.file_names import BIT_GRID, MANIFEST, sha256_of
from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SourceFile

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""What diffusers and transformers call a model's weights; preferred over any other name."""
INDEX_SUFFIX = ".index.json"
PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl"})
QUANTIZED_DTYPES = frozenset({"U8", "I8", "F8_E4M3", "F8_E5M2"})
QUANTIZED_PARTS = (
    "codes",
    "qweight",
    "weight_scale",
    "scale_weight",
    "weight_zero_point",
    "absmax",
)
"""Last parts of tensor names that other quantizers, and our packs, write."""
LARGEST_MAGNITUDE = 1e12
"""Largest value taken for a weight. Far beyond it float32 sums of squares, which scales and factors
come from, could overflow; weights of a working network lie nine orders of magnitude below."""
SHOWN_NAMES = 3
CONVERT_HINT = "convert it where you trust it: load it, then safetensors.torch.save_file"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of a known architecture.

    Attributes:
        path: what the user named.
        family: the architecture that its tensors are of.
        config: shapes of the network.
        headers: of every weight file, in name order.
        parts_dir: the folder that may hold a VAE, a scheduler, prompts and sampling defaults
            beside the transformer; None for a bare file.
    """

    path: Path
    family: Family
    config: Config
    headers: tuple[Header, ...]
    parts_dir: Path | None

    def architecture(self, variant: str | None = None) -> Architecture:
        """The network, as one of its family's variants; None for the family's first.

        Raises:
            UsageError: the family has no such variant.
        """
        chosen = self.family.variants[0] if variant is None else variant
        return Architecture(self.family, self.config, self.family.check_variant(chosen))

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._places

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in the order of the network."""
        return [name for name in self.family.tensor_shapes(self.config) if name in self._places]

    @property
    def file_bytes(self) -> int:
        """Size of all weight files, in bytes."""
        return sum(header.identity.bytes for header in self.headers)

    def tensor(self, name: str) -> Tensor:
        """Read one tensor in its stored dtype, on the CPU, into memory of its own.

        Raises:
            CheckpointError: it holds NaN, an infinity or a value beyond `LARGEST_MAGNITUDE`, or
                its file changed; names the tensor or the file.
            KeyError: there is no such tensor.
        """
        tensor = self._places[name].read(name, error=CheckpointError)
        low, high = tensor.aminmax()  # both NaN if there is one
        largest = max(-float(low), float(high))
        if not largest <= LARGEST_MAGNITUDE:
            raise CheckpointError(
                f"{self.path}: tensor {name} holds a value that is not finite or far too large"
                f" ({largest:.3g})",
                hint="the checkpoint is damaged, or overflowed when it was converted",
            )
        return tensor

    def source_files(self) -> Iterator[SourceFile]:
        """Name, size and sha256 of every weight file; reads all of them once.

        Raises:
            CheckpointError: a file cannot be read, or was replaced since it was opened.
        """
        for header in self.headers:
            try:
                digest = sha256_of(header.path)
                unchanged = FileIdentity.of(header.path.stat()) == header.identity
            except OSError as cause:
                raise _unreadable(header.path, cause) from cause
            if not unchanged:
                raise CheckpointError(f"{header.path}: was replaced while it was in use")
            yield SourceFile(
                name=_printable(header.path.name), sha256=digest, bytes=header.identity.bytes
            )

    @cached_property
    def _places(self) -> dict[str, Header]:
        return {name: header for header in self.headers for name in header.tensors}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint: its folder (``transformer/`` inside or the folder itself) or its file.

    Raises:
        CheckpointError: missing, truncated, a pickle, a pointer or web page in its place, a shard
            missing or outside the folder, another architecture (first differing names), or
            already quantized.
    """
    try:
        return _open(path)
    except OSError as cause:  # a folder without permission, a name that is too long
        raise _unreadable(path, cause) from cause


def _open(path: Path) -> Checkpoint:
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    folder = _transformer_dir(path) if path.is_dir() else None
    files = [_bare_file(path)] if folder is None else _weight_files(folder)

    headers = tuple(read_header(file, error=CheckpointError) for file in files)
    shapes: dict[str, Shape] = {}
    for header in headers:
        for name, info in header.tensors.items():
            if name in shapes:
                raise CheckpointError(f"{header.path}: tensor {name} is in another shard too")
            shapes[name] = info.shape
    _refuse_quantized(path, headers)
    family = _family_of(path, shapes)
    config = None if folder is None else _config_file(folder, family)
    if config is None:
        config = family.config_from_shapes(path, shapes, headers)
    _check_architecture(path, shapes, family, config)
    _check_dtypes(headers)
    parts_dir = None if folder is None else _parts_dir(path, folder)
    return Checkpoint(path, family, config, headers, parts_dir)


def _family_of(path: Path, shapes: Mapping[str, Shape]) -> Family:
    """The family whose tensors these are; an error is about the one that comes nearest."""
    absent, family = min(
        ((known.lacks(shapes), known) for known in families()), key=lambda pair: len(pair[0])
    )
    if absent:
        found = ", ".join(name[:200] for name in sorted(shapes)[:SHOWN_NAMES]) or "no tensor"
        raise CheckpointError(
            f"{path}: not a {family.title} transformer: it lacks {', '.join(absent[:SHOWN_NAMES])}"
            f" and holds {found}, ... ({len(shapes)} in all)",
            hint=f"name the {family.title} transformer's own weights, not a whole pipeline in one"
            " file",
        )
    return family


def _printable(name: str) -> str:
    """A file's name as a manifest may hold it: not every name is text that JSON can carry."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in name)


def _unreadable(path: Path, cause: OSError) -> CheckpointError:
    return CheckpointError(f"{path}: cannot be read: {cause.strerror or cause}")


def _transformer_dir(path: Path) -> Path:
    if (path / MANIFEST).exists() and (path / BIT_GRID).exists():
        raise CheckpointError(
            f"{path}: this is a pack, already quantized", hint="build from its source checkpoint"
        )
    inner = path / "transformer"
    return inner if inner.is_dir() else path


def _parts_dir(path: Path, folder: Path) -> Path:
    """The pipeline's folder, whether the user named it or the ``transformer`` inside."""
    absolute = path.absolute()
    return absolute.parent if folder == path and absolute.name == "transformer" else path


def _bare_file(path: Path) -> Path:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path}: pickle files can run code when loaded and are not read", hint=CONVERT_HINT
        )
    return path


def _config_file(folder: Path, family: Family) -> Config | None:
    file = folder / "config.json"
    if not file.exists():
        return None
    content = read_json_file(file, where=str(file), error=CheckpointError)
    return _config_from_json(content, family, str(file))


def _config_from_json(content: object, family: Family, where: str) -> Config:
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: not a JSON object")
    if content.pop("quantization_config", None) is not None:
        raise CheckpointError(
            f"{where}: already quantized (it has a quantization_config)",
            hint="build from the original weights",
        )
    kept = {key: value for key, value in content.items() if not key.startswith("_")}
    return validate(family.config_type, kept, where=where, error=CheckpointError)


def _weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, shards in name order, each a plain name inside the folder.

    Of several sets of weights (diffusers keeps ``.fp16.`` variants side by side) the one with the
    standard name is taken; without it, there must be one only.
    """
    found = {file.name for file in folder.iterdir()}
    for name in WEIGHT_FILES:
        if name + INDEX_SUFFIX in found:
            return _shards(folder, folder / (name + INDEX_SUFFIX))
        if name in found:
            return [_inside(folder, name)]
    sets = sorted(name for name in found if name.endswith(".safetensors" + INDEX_SUFFIX))
    sets = sets or sorted(name for name in found if name.endswith(".safetensors"))
    if len(sets) == 1:
        (name,) = sets
        if name.endswith(INDEX_SUFFIX):
            return _shards(folder, folder / name)
        return [_inside(folder, name)]
    if sets:
        raise CheckpointError(
            f"{folder}: {len(sets)} weight files, and none is called {WEIGHT_FILES[0]}"
            f" ({', '.join(sets[:SHOWN_NAMES])}, ...)",
            hint="name one file, or add the index that joins them",
        )
    pickles = sorted(name for name in found if Path(name).suffix.lower() in PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            f"{folder}: only pickle weights ({pickles[0]}), which can run code when loaded"
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
    files = [_inside(folder, name) for name in sorted(set(weight_map.values()))]
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
    plain = name.isprintable() and "\\" not in name
    if not plain or pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise CheckpointError(f"{folder}: weight file name {name[:200]!r} leads out of the folder")
    file = folder / name
    # Hub caches link every file to a blob store beside the snapshot: such links point into the
    # same model's cache, two levels up, and are how most people have the weights. Not
    # Path.resolve, which raises on a loop of links; opening the file reports those.
    root = Path(os.path.realpath(folder))
    real = Path(os.path.realpath(file))
    if not any(real.is_relative_to(base) for base in (root, *_hub_blobs(root))):
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
            if name.rsplit(".", 1)[-1] in QUANTIZED_PARTS or info.dtype in QUANTIZED_DTYPES:
                raise CheckpointError(
                    f"{path}: already quantized (tensor {name[:200]} is {info.dtype})",
                    hint="build from the original 16- or 32-bit weights",
                )


def _check_dtypes(headers: tuple[Header, ...]) -> None:
    for header in headers:
        for name, info in header.tensors.items():
            if info.dtype not in FLOAT_DTYPES:
                raise CheckpointError(
                    f"{header.path}: tensor {name} is {info.dtype}, expected one of"
                    f" {', '.join(sorted(FLOAT_DTYPES))}"
                )


def _check_architecture(
    path: Path, shapes: Mapping[str, Shape], family: Family, config: Config
) -> None:
    """The tensors must be exactly the network's; what can be rebuilt may be absent."""
    expected = family.tensor_shapes(config)
    missing = [name for name in expected if name not in shapes and name not in family.rebuilt]
    extra = sorted(name for name in shapes if name not in expected)
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"missing {', '.join(missing[:SHOWN_NAMES])} ({len(missing)} in all)")
        if extra:
            shown = ", ".join(name[:200] for name in extra[:SHOWN_NAMES])
            parts.append(f"unexpected {shown} ({len(extra)} in all)")
        raise CheckpointError(
            f"{path}: not a {family.title} transformer: {'; '.join(parts)}",
            hint="name the transformer's own weights, not a whole pipeline in one file",
        )
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(shape)}, but the configuration says"
                f" {list(expected[name])}"
            )
