"""Open a pack: everything it says is checked before anything is allocated.

Checks run from cheap to dear: names, manifest, sizes, grid, tensor headers, the values that could
poison a whole image (scales, factors, biases), and, when asked for, hashes.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.hadamard import Rotation, unpack_signs
from artifacts.codec.layer_parts import Values, allowed_values, expected_tensors, wrong_value
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.family import Architecture, Config
from artifacts.files.safetensors_io import Header, TensorSpec, read_header
from artifacts.pack.contents import (
    architecture_of,
    check_agreement,
    check_difference,
    pack_rotations,
    pack_tensors,
    signs_name,
)
from artifacts.pack.file_names import (
    BIT_GRID,
    COMPANION_FILES,
    HUB_NAMES,
    MANIFEST,
    PROMPTS,
    README,
    SCHEDULER_FILES,
    SCHEDULER_FOLDER,
    TRANSFORMER_INDEX,
    VAE_FILES,
    VAE_FOLDER,
    is_known_file,
    sha256_of,
    transformer_files,
)
from schemas.bit_grid import BitGrid
from schemas.errors import PackError
from schemas.json_io import read_json_file, validate
from schemas.manifest import FORMAT_VERSION, Manifest

_PROMPT_DTYPES = ("BF16", "F16", "F32")
_MAX_FILES = 1000
_UPGRADE = "upgrade this program, or build the pack again with this version"


@dataclass(frozen=True, eq=False)
class Pack:
    """A checked pack. Tensors are read when asked for, each into memory of its own.

    A file that is replaced while the pack is in use gives a `PackError` at the next read from it.

    Attributes:
        path: the directory.
        manifest, bit_grid: the two JSON files.
        architecture: the network that the manifest describes.
        rotations: size as text -> rotation, of every size that occurs.
        headers: tensor file -> its checked header; the transformer's files.
        prompt_header: header of ``prompts.safetensors``, or None when the pack has none.
    """

    path: Path
    manifest: Manifest
    bit_grid: BitGrid
    architecture: Architecture
    rotations: Mapping[str, Rotation]
    headers: Mapping[str, Header]
    prompt_header: Header | None

    @property
    def config(self) -> Config:
        """Shapes of the network."""
        return self.architecture.config

    @property
    def variant(self) -> str:
        """Which published network it is."""
        return self.architecture.variant

    @property
    def layer_names(self) -> list[str]:
        """Names of the quantized layers, in network order (without those kept in 16 bits)."""
        layers = self.manifest.layers
        return [
            name
            for name in self.architecture.quantizable
            if name in layers and layers[name].is_quantized
        ]

    @property
    def tensor_names(self) -> list[str]:
        """Names of the tensors kept in 16 bits, sorted; biases of quantized layers not among them.

        These keep their names of the network's state dict.
        """
        return sorted(
            set(self._places) - self._layer_tensors() - set(map(signs_name, self.rotations))
        )

    @property
    def vae_dir(self) -> Path | None:
        """The VAE's diffusers folder, or None when the pack holds the transformer alone."""
        return self.path / VAE_FOLDER if VAE_FILES[0] in self.manifest.files else None

    @property
    def scheduler_dir(self) -> Path | None:
        """The scheduler's diffusers folder, or None when the pack holds the transformer alone."""
        return self.path / SCHEDULER_FOLDER if SCHEDULER_FILES[0] in self.manifest.files else None

    def layer(self, name: str) -> QuantizedWeight:
        """Read one quantized layer.

        Raises:
            KeyError: there is no quantized layer of that name.
            PackError: a file changed since the pack was opened.
        """
        record = self.manifest.layers[name]
        if not record.is_quantized:
            raise KeyError(f"{name} is kept in 16 bits; its weight is the tensor {name}.weight")
        places = self._places
        names = [n for n in expected_tensors(name, record) if n in places]
        tensors = {n: places[n].read(n) for n in names}
        signs = None
        if record.rotation != "none":
            signs = self.signs(record.in_features)
        rotation = self.rotations.get(record.rotation, Rotation.identity(record.in_features))
        return QuantizedWeight.from_tensors(name, record, tensors, rotation, signs)

    def signs(self, size: int) -> Tensor | None:
        """Rotation signs of inputs of one size, float32 [size]; None where the pack has none.

        Raises:
            PackError: a file changed since the pack was opened, or the padding is not zero.
        """
        name = signs_name(size)
        place = self._places.get(name)
        if place is None:
            return None
        try:
            return unpack_signs(place.read(name), size)
        except ValueError as cause:
            raise PackError(f"{place.path}: {name}: {cause}") from None

    def tensor(self, name: str) -> Tensor:
        """Read one tensor by its name in the pack.

        Raises:
            KeyError: there is no such tensor.
            PackError: a file changed since the pack was opened.
        """
        return self._places[name].read(name)

    def prompts(self) -> dict[str, Tensor] | None:
        """Prompt embeddings, or None when the pack has none.

        `Architecture.prompt_shapes` has names and shapes.

        Raises:
            PackError: the file changed since the pack was opened.
        """
        header = self.prompt_header
        return None if header is None else {name: header.read(name) for name in header.tensors}

    @cached_property
    def _places(self) -> dict[str, Header]:
        return {name: header for header in self.headers.values() for name in header.tensors}

    def _layer_tensors(self) -> set[str]:
        layers = self.manifest.layers.items()
        return {
            tensor
            for name, record in layers
            if record.is_quantized
            for tensor in expected_tensors(name, record)
        }


def open_pack(path: Path, *, verify_hashes: bool = False) -> Pack:
    """Open a pack and check all of it but, by default, the hashes.

    Args:
        path: the directory.
        verify_hashes: read every file in full and compare its SHA-256 with the manifest's.

    Raises:
        PackError: the pack is damaged, inconsistent, or of a newer version; the message names the
            file, layer or tensor.
    """
    found = _find_files(path)
    manifest = _read_manifest(path)
    _check_files(path, manifest, found)
    architecture = architecture_of(manifest)
    grid = validate(
        BitGrid,
        read_json_file(path / BIT_GRID, where=BIT_GRID, error=PackError),
        where=BIT_GRID,
        error=PackError,
    )
    check_agreement(manifest, architecture, grid)
    rotations = pack_rotations(manifest)
    headers = _read_transformer_headers(path, manifest, pack_tensors(manifest, architecture))
    prompt_header = _read_prompt_header(path, manifest, architecture)
    _check_companions(path, manifest)
    _check_values(headers, manifest)
    pack = Pack(path, manifest, grid, architecture, rotations, headers, prompt_header)
    for size in rotations:
        pack.signs(int(size))
    if verify_hashes:
        for name, record in sorted(manifest.files.items()):
            if _sha256(path, name) != record.sha256:
                raise PackError(f"{name}: content does not match its SHA-256 in {MANIFEST}")
    return pack


def verify_pack(path: Path) -> Pack:
    """Open a pack with all hashes, then decode the codes of every layer.

    Raises:
        PackError: as `open_pack`, or a layer's padding is not zero.
    """
    pack = open_pack(path, verify_hashes=True)
    for name in pack.layer_names:
        layer = pack.layer(name)
        if not torch.equal(pack_codes(layer.unpacked_codes(), layer.weight_bits), layer.codes):
            raise PackError(f"layer {name}: bits are set in the padding of its codes")
    return pack


def _find_files(path: Path) -> set[str]:
    """Relative names of all files; refuses links that point out and whatever is not a file."""
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise PackError(f"pack {path} {what}")
    found: set[str] = set()
    root = path.resolve()
    for name, entry in _walk(path, ""):
        # Not Path.resolve, which raises on a loop of links; the stat below refuses those.
        if not Path(os.path.realpath(entry)).is_relative_to(root):
            raise PackError(
                f"{name}: a link that points out of the pack",
                hint="copy the pack with its links resolved, for example with `cp -rL`",
            )
        try:
            mode = entry.stat().st_mode
        except OSError as cause:
            raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
        if not stat.S_ISREG(mode):
            raise PackError(f"{name}: neither a file nor a directory of a pack")
        found.add(name)
        if len(found) > _MAX_FILES:
            raise PackError(f"pack {path} has more than {_MAX_FILES} files")
    return found


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Files of a pack's directory and of its known subdirectories, sorted."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as cause:
        raise PackError(f"{folder}: cannot be read: {cause.strerror or cause}") from cause
    for entry in entries:
        # A name that is not UTF-8 becomes one that can be printed; it matches no file of a pack.
        name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if name in HUB_NAMES:
            continue
        if name in (VAE_FOLDER, SCHEDULER_FOLDER) and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
        else:
            yield name, Path(entry.path)


def _read_manifest(path: Path) -> Manifest:
    content = read_json_file(path / MANIFEST, where=MANIFEST, error=PackError)
    if not isinstance(content, dict) or content.get("format") != "qpack":
        raise PackError(f'{MANIFEST}: format is not "qpack"')
    # Before the rest is looked at: a newer layout may not fit these models at all.
    for key in ("format_version", "min_reader_version"):
        version = content.get(key)
        if type(version) is int and version > FORMAT_VERSION:
            raise PackError(
                f"{MANIFEST}: {key} is {version}, this program reads up to {FORMAT_VERSION}",
                hint=_UPGRADE,
            )
    manifest = validate(Manifest, content, where=MANIFEST, error=PackError)
    if manifest.checksum != manifest.true_checksum:
        raise PackError(f"{MANIFEST}: content does not match its checksum")
    return manifest


def _check_files(path: Path, manifest: Manifest, found: set[str]) -> None:
    check_difference(found - {MANIFEST}, manifest.files, "the directory", MANIFEST, "files")
    for name in sorted(manifest.files):
        if not is_known_file(name):
            raise PackError(f"{name}: not a file of a pack")
    for required in (BIT_GRID, README):
        if required not in manifest.files:
            raise PackError(f"{required} is missing")
    for name, record in sorted(manifest.files.items()):
        try:
            size = (path / name).stat().st_size
        except OSError as cause:
            raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
        if size != record.bytes:
            raise PackError(
                f"{name}: {record.bytes} bytes expected by {MANIFEST}, the file has {size}"
            )


def _read_transformer_headers(
    path: Path, manifest: Manifest, expected: Mapping[str, TensorSpec]
) -> dict[str, Header]:
    try:
        names = transformer_files(manifest.files)
    except ValueError as cause:
        raise PackError(str(cause)) from None
    headers = {name: read_header(path / name) for name in names}
    places = [(tensor, name) for name, header in headers.items() for tensor in header.tensors]
    file_of = dict(places)
    if len(file_of) != len(places):
        twice = next(tensor for tensor, name in places if file_of[tensor] != name)
        raise PackError(f"tensor {twice} is in more than one shard")
    label = names[0] if len(names) == 1 else "the shards"
    check_difference(file_of, expected, label, MANIFEST, "tensors")
    for tensor, spec in expected.items():
        actual = headers[file_of[tensor]].tensors[tensor].spec
        if actual != spec:
            raise PackError(
                f"{file_of[tensor]}: tensor {tensor} is {actual}, by {MANIFEST} it must be {spec}"
            )
    if len(names) > 1 or TRANSFORMER_INDEX in manifest.files:
        _check_index(path, file_of, sum(spec.nbytes for spec in expected.values()))
    total = sum(manifest.files[name].bytes for name in names)
    if manifest.transformer_bytes.pack != total:
        raise PackError(
            f"{MANIFEST}: transformer_bytes.pack is {manifest.transformer_bytes.pack}, the files"
            f" have {total}"
        )
    return headers


def _check_index(path: Path, file_of: Mapping[str, str], total_bytes: int) -> None:
    index = read_json_file(path / TRANSFORMER_INDEX, where=TRANSFORMER_INDEX, error=PackError)
    if index != {"metadata": {"total_size": total_bytes}, "weight_map": dict(file_of)}:
        raise PackError(f"{TRANSFORMER_INDEX}: does not say what the shards hold")


def _read_prompt_header(
    path: Path, manifest: Manifest, architecture: Architecture
) -> Header | None:
    if PROMPTS not in manifest.files:
        return None
    header = read_header(path / PROMPTS)
    embeds = header.tensors.get("positive.embeds", TensorSpec("BF16", ()))
    tokens = embeds.shape[0] if embeds.shape else 1
    expected = architecture.prompt_shapes(tokens)
    check_difference(header.tensors, expected, PROMPTS, "the pack format", "tensors")
    for name, shape in expected.items():
        info = header.tensors[name]
        if info.shape != shape or info.dtype not in _PROMPT_DTYPES or tokens < 1:
            raise PackError(
                f"{PROMPTS}: tensor {name} is {info.spec}, but must be floats {list(shape)}"
            )
    for name in expected:
        _check_tensor(header, name, PROMPTS)
    return header


def _check_companions(path: Path, manifest: Manifest) -> None:
    """The base model's files come as a whole or not at all, and are what their names say."""
    present = [name for name in COMPANION_FILES if name in manifest.files]
    if present and len(present) != len(COMPANION_FILES):
        missing = next(name for name in COMPANION_FILES if name not in present)
        raise PackError(f"{missing} is missing beside {present[0]}")
    for name in present:
        if name.endswith(".json"):
            if not isinstance(read_json_file(path / name, where=name, error=PackError), dict):
                raise PackError(f"{name}: not a JSON object")
        else:
            read_header(path / name)


def _check_values(headers: Mapping[str, Header], manifest: Manifest) -> None:
    """Float tensors must be finite, those of quantized layers what `LAYER_PARTS` says.

    Holds one tensor at a time.
    """
    for file_name, header in headers.items():
        for name, info in header.tensors.items():
            if info.dtype != "U8":
                _check_tensor(header, name, file_name, allowed_values(name, manifest.layers))


def _check_tensor(header: Header, name: str, file_name: str, allowed: Values = "finite") -> None:
    wrong = wrong_value(header.read(name), allowed)
    if wrong:
        raise PackError(f"{file_name}: tensor {name} has {wrong}")


def _sha256(path: Path, name: str) -> str:
    try:
        return sha256_of(path / name)
    except OSError as cause:
        raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
