"""A source checkpoint, read one tensor at a time: a diffusers folder or one ``.safetensors`` file.

Opening reads headers only: names, shapes and dtypes are checked against the architecture before
any weight is touched. Both sides use this: the planner to build packs, the runtime to run the
unquantized network for comparison.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from artifacts.checkpoint.variant_name import named_variant
from artifacts.checkpoint.weight_files import (
    CONVERT_HINT,
    PICKLE_SUFFIXES,
    TRANSFORMER_FOLDER,
    find_weight_files,
    has_weights,
)
from artifacts.checkpoint.wrapping import ignored, is_scalar, not_a_network, unwrap
from artifacts.family import Architecture, Config, Family, families
from artifacts.files.hashing import sha256_of
from artifacts.files.safetensors_io import FLOAT_DTYPES, FileIdentity, Header, read_header
from artifacts.pack.file_names import BIT_GRID, MANIFEST
from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SourceFile
from schemas.places import absent

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
        remarks: what was stripped or ignored, one line each.
    """

    path: Path
    family: Family
    config: Config
    headers: tuple[Header, ...]
    parts_dir: Path | None
    remarks: tuple[str, ...] = ()

    @property
    def variant(self) -> str | None:
        """The variant that its name says, or None."""
        return None if self._named is None else self._named[0]

    def architecture(self, variant: str | None = None) -> Architecture:
        """The network, as one of its family's variants.

        Args:
            variant: which one; None for the one that the checkpoint's name says, or the family's
                first.

        Raises:
            UsageError: the family has no such variant.
        """
        chosen = variant or self.variant or self.family.variants[0]
        return Architecture(self.family, self.config, self.family.check_variant(chosen))

    def notes(self, variant: str | None) -> list[str]:
        """What whoever uses the checkpoint should know, one line each.

        Args:
            variant: what the user says; None where that was left to the checkpoint's name.
        """
        notes = [f"{self.path}: {remark}" for remark in self.remarks]
        if variant is None and self._named is not None:
            named, name = self._named
            notes.append(f"{self.path}: taken as variant {named}, by its name {name!r}")
        return notes

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
    def _named(self) -> tuple[str, str] | None:
        return named_variant(self.path, self.family)

    @cached_property
    def _places(self) -> dict[str, Header]:
        return {name: header for header in self.headers for name in header.tensors}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint: its folder, or its file.

    In a folder, weights lie in ``transformer/``, in the folder itself, or where their family says.

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
        message, hint = absent(path, "file or folder")
        raise CheckpointError(message, hint=hint)
    folder = _weights_dir(path) if path.is_dir() else None
    files = [_bare_file(path)] if folder is None else find_weight_files(folder)

    headers = tuple(read_header(file, error=CheckpointError) for file in files)
    _refuse_repeated(headers)
    _refuse_quantized(path, headers)
    headers, family, remarks = unwrap(headers)
    if family is None:
        raise not_a_network(path, (name for header in headers for name in header.tensors))
    shapes = {name: info.shape for header in headers for name, info in header.tensors.items()}
    config, said_by = None, "its tensors"
    config_file = None if folder is None else _config_file(folder, family)
    if config_file is not None:
        config, unknown = _read_config(config_file, family)
        said_by = config_file.name
        if unknown and not family.config_file.shared:
            remarks.append(f"{said_by}: ignored {_shown(unknown)}")
            said_by += f" (without {_shown(unknown)})"
    if config is None:
        config = family.config_from_shapes(path, shapes, headers)
    headers, left_out = _without_counters(headers, family, config)
    _check_architecture(path, headers, family, config, said_by)
    _check_dtypes(headers)
    parts_dir = None if folder is None else _parts_dir(path, folder, family)
    return Checkpoint(path, family, config, headers, parts_dir, (*remarks, *left_out))


def _printable(name: str) -> str:
    """A file's name as a manifest may hold it: not every name is text that JSON can carry."""
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in name)


def _unreadable(path: Path, cause: OSError) -> CheckpointError:
    return CheckpointError(f"{path}: cannot be read: {cause.strerror or cause}")


def _weights_dir(path: Path) -> Path:
    if (path / MANIFEST).exists() and (path / BIT_GRID).exists():
        raise CheckpointError(
            f"{path}: this is a pack, already quantized", hint="build from its source checkpoint"
        )
    inner = path / TRANSFORMER_FOLDER
    if inner.is_dir():
        return inner
    if not has_weights(path):
        for folder in (path / name for family in families() for name in family.weight_folders):
            if has_weights(folder):
                return folder
    return path


def _config_file(folder: Path, family: Family) -> Path | None:
    """Where the configuration is: beside the weights, or beside their folder; None for nowhere."""
    places = [folder]
    if folder.absolute().name in family.weight_folders:
        places.append(folder.absolute().parent)
    files = [place / family.config_file.name for place in places]
    return next((file for file in files if file.exists()), None)


def _parts_dir(path: Path, folder: Path, family: Family) -> Path:
    """The pipeline's folder, whether the user named it or the weights' folder inside."""
    absolute = path.absolute()
    inner = (TRANSFORMER_FOLDER, *family.weight_folders)
    return absolute.parent if folder == path and absolute.name in inner else path


def _bare_file(path: Path) -> Path:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path}: pickle files can run code when loaded and are not read", hint=CONVERT_HINT
        )
    return path


def _read_config(file: Path, family: Family) -> tuple[Config, list[str]]:
    """The configuration, and the keys that it does not know.

    Programs add keys of their own: EMA wrappers their decay, trainers their versions. Whatever has
    a shape is held against the tensors, so a key that is unknown here is named and ignored.
    """
    content = read_json_file(file, where=str(file), error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    if content.pop("quantization_config", None) is not None:
        raise CheckpointError(
            f"{file}: already quantized (it has a quantization_config)",
            hint="build from the original weights",
        )
    known = {key: value for key, value in content.items() if key in family.config_type.model_fields}
    unknown = sorted(key for key in content if key not in known and not key.startswith("_"))
    return validate(family.config_type, known, where=str(file), error=CheckpointError), unknown


def _refuse_repeated(headers: tuple[Header, ...]) -> None:
    seen: set[str] = set()
    for header in headers:
        for name in header.tensors:
            if name in seen:
                raise CheckpointError(f"{header.path}: tensor {name[:200]} is in another shard too")
            seen.add(name)


def _without_counters(
    headers: tuple[Header, ...], family: Family, config: Config
) -> tuple[tuple[Header, ...], list[str]]:
    """The headers without single numbers that the network does not have."""
    expected = family.tensor_shapes(config)
    extra = {
        name
        for header in headers
        for name, info in header.tensors.items()
        if name not in expected and is_scalar(info)
    }
    if not extra:
        return headers, []
    kept = tuple(
        replace(header, tensors={n: i for n, i in header.tensors.items() if n not in extra})
        for header in headers
    )
    return kept, ignored(sorted(extra))


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
    path: Path, headers: tuple[Header, ...], family: Family, config: Config, said_by: str
) -> None:
    """The tensors must be exactly the network's; what can be rebuilt may be absent."""
    shapes = {name: info.shape for header in headers for name, info in header.tensors.items()}
    expected = family.tensor_shapes(config)
    missing = [name for name in expected if name not in shapes and name not in family.rebuilt]
    extra = sorted(name for name in shapes if name not in expected)
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"missing {_shown(missing)} ({len(missing)} in all)")
        if extra:
            parts.append(f"unexpected {_shown(extra)} ({len(extra)} in all)")
        raise CheckpointError(
            f"{path}: not a {family.title} transformer as {said_by} says: {'; '.join(parts)}",
            hint="name the transformer's own weights, not a whole pipeline in one file",
        )
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(shape)}, but the configuration says"
                f" {list(expected[name])}"
            )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:200] for name in names[:SHOWN_NAMES])
