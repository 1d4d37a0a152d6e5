"""Write a pack: into a temporary sibling directory, checked, synced, then renamed into place.

    with PackWriter(path, force=False) as writer:
        writer.add_layer(quantized_weight)      # any number, in any order
        writer.add_tensor("proj_out.weight", tensor)
        writer.add_prompts(prompts)
        writer.add_file("vae/config.json", data)
        manifest = writer.finish(manifest, bit_grid, readme)

A finished pack can be given another manifest and grid: ``writer.adopt(pack)`` takes the place of
everything before ``finish``.

Whatever ends the block before ``finish`` returns, an exception or Ctrl-C included, removes the
temporary directory and leaves an older pack at ``path`` as it was.

Each tensor is spooled to a part file at once, so memory holds one layer; layers that lie in files
of their own already are read from there in the end. The bytes of the pack depend on what is added
alone: not on the order, the time, or the machine.

Two writers of one path do not see one another; `artifacts.files.output_lock` keeps the second away.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation, pack_signs
from artifacts.codec.layer_parts import LAYER_PARTS
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.codec.values import wrong_value
from artifacts.files.atomic_swap import put_in_place, sync_directory
from artifacts.files.hashing import CHUNK_BYTES, sha256_of
from artifacts.files.safetensors_io import (
    Entry,
    Header,
    TensorSpec,
    file_order,
    tensor_bytes,
    write_safetensors,
)
from artifacts.pack.contents import signs_name
from artifacts.pack.directory import other_files
from artifacts.pack.file_names import (
    BIT_GRID,
    COMPANION_FILES,
    GIT,
    MANIFEST,
    MAX_SHARDS,
    MODULATION,
    PROMPTS,
    README,
    TRANSFORMER,
    TRANSFORMER_INDEX,
    is_litter,
    network_files,
    shard_name,
)
from artifacts.pack.modulation import table_name
from artifacts.pack.reader import Pack, open_pack
from schemas.bit_grid import BitGrid
from schemas.errors import ResourceError, UsageError
from schemas.json_io import dump_json, format_json
from schemas.manifest import FileRecord, Manifest, RotationSize

SHARD_BYTES = 5 * 10**9
"""A transformer above this is split into shards."""
# What other tools look for before they load a safetensors file.
_FILE_METADATA = {"format": "pt"}
_PARTS = ".parts"
SHOWN_NAMES = 5


class PackWriter:
    """Collects the content of one pack and puts it in place as a whole; a context manager.

    Args:
        path: the pack's directory.
        force: replace an older pack at ``path``.
        shard_bytes: largest size of one transformer file's tensors.

    Raises:
        UsageError: on entering: something is at ``path`` already and ``force`` is not set, or it
            is not a pack, or the directory above does not exist.
        ResourceError: from any method: the disk is full or fails.
    """

    def __init__(self, path: Path, *, force: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
        self.path = path
        self._force = force
        self._shard_bytes = shard_bytes
        self._folder: Path | None = None
        self._entries: dict[str, Entry] = {}
        self._table: dict[str, Entry] = {}
        self._rotations: dict[int, Rotation] = {}
        self._signs: dict[int, Tensor | None] = {}
        self._adopted: list[str] = []

    def __enter__(self) -> Self:
        # Every check comes before any work: hours may pass between here and the rename.
        check_output(self.path, force=self._force)
        with self._disk_errors():
            prefix = _partial_prefix(self.path)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.path.absolute().parent))
            # mkdtemp makes it private; a pack is as readable as any other new directory.
            folder.chmod(0o777 & ~_umask())
            (folder / _PARTS).mkdir()
        self._folder = folder
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def rotation_sizes(self) -> dict[str, RotationSize]:
        """The rotations of the layers added so far, as the manifest records them."""
        return {
            str(size): RotationSize(construction=r.construction, block_size=r.block_size)
            for size, r in sorted(self._rotations.items())
        }

    def add_layer(self, layer: QuantizedWeight, stored: Header | None = None) -> None:
        """Add a quantized layer, and its size's rotation signs when they are new.

        Args:
            layer: the layer.
            stored: a file that holds the layer's tensors (`artifacts.pack.layer_file`) and stays
                as it is until `finish` has read them; None spools them.

        Raises:
            ValueError: a layer of the same size came with another rotation or other signs, a name
                is taken, or a part has a value that `LAYER_PARTS` does not allow.
        """
        if not layer.rotation.is_identity:
            self._check_rotation(layer)
        for part, value in layer.parts().items():
            wrong = None if value is None else wrong_value(value, LAYER_PARTS[part].values)
            if wrong:
                raise ValueError(f"{layer.name}.{part} has {wrong}")
        for name, tensor in layer.tensors().items():
            self._spool(name, tensor, stored)

    def add_tensor(self, name: str, tensor: Tensor) -> None:
        """Add an unquantized tensor, rounded to bfloat16, under its name in the network.

        Raises:
            ValueError: the name is taken, or a value is not finite in bfloat16.
        """
        rounded = tensor.to(torch.bfloat16)
        wrong = wrong_value(rounded)
        if wrong:
            raise ValueError(f"{name} has {wrong}")
        self._spool(name, rounded)

    def add_prompts(self, tensors: Mapping[str, Tensor]) -> None:
        """Add the prompt embeddings; `Architecture.prompt_shapes` has names and shapes.

        Float dtypes of up to 32 bits are kept as they are.
        """
        entries = {name: Entry.of(tensor) for name, tensor in tensors.items()}
        with self._disk_errors():
            write_safetensors(self._open_folder / PROMPTS, entries, _FILE_METADATA)

    def add_modulation(self, layer: str, rows: Tensor) -> None:
        """Add what a modulation layer gives, 16-bit floats [prompts, timesteps, out].

        Raises:
            ValueError: the layer was added before, or a value is not finite.
        """
        wrong = wrong_value(rows)
        if wrong:
            raise ValueError(f"the table of {layer} has {wrong}")
        self._spool(table_name(layer), rows, of=self._table)

    def add_file(self, name: str, source: bytes | Path) -> None:
        """Add a file of the base model: its bytes, or the path of a file to copy.

        Raises:
            ValueError: ``name`` is not one of `artifacts.pack.file_names.COMPANION_FILES`.
        """
        if name not in COMPANION_FILES:
            raise ValueError(f"{name}: not one of {', '.join(COMPANION_FILES)}")
        target = self._open_folder / name
        with self._disk_errors():
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as original:
                        shutil.copyfileobj(original, file, CHUNK_BYTES)
                file.flush()
                os.fsync(file.fileno())

    def adopt(self, pack: Pack) -> None:
        """Take over all files of ``pack`` but those that `finish` writes.

        On one file system they are linked, not copied; ``pack`` itself stays as it is. Where it
        consists of links, as in a hub cache, what they point to is taken.
        """
        kept = [name for name in pack.manifest.files if name not in (README, BIT_GRID)]
        sources = {name: Path(os.path.realpath(pack.path / name)) for name in kept}
        with self._disk_errors():
            for name in kept:
                target = self._open_folder / name
                target.parent.mkdir(exist_ok=True)
                try:
                    target.hardlink_to(sources[name])
                except OSError:  # another file system, or one without links
                    shutil.copyfile(sources[name], target)
        self._adopted = network_files(kept)

    def finish(
        self, manifest: Manifest, bit_grid: BitGrid, readme: str | Callable[[Manifest], str]
    ) -> Manifest:
        """Complete the pack, check it as a reader would, and put it in place.

        Args:
            manifest: complete but for ``files``, ``checksum`` and ``transformer_bytes.pack``, which
                are filled in here, whatever they hold.
            bit_grid: the grid.
            readme: the model card, or what makes it from the manifest, which by then has the
                pack's size but not yet its files.

        Returns:
            The manifest as written.

        Raises:
            PackError: what was added does not agree with ``manifest`` and ``bit_grid``.
        """
        folder = self._open_folder
        with self._disk_errors():
            network = self._adopted or self._write_network(folder)
            shutil.rmtree(folder / _PARTS)
            pack_bytes = sum((folder / name).stat().st_size for name in network)
            sizes = manifest.transformer_bytes.model_copy(update={"pack": pack_bytes})
            manifest = manifest.model_copy(update={"transformer_bytes": sizes, "files": {}})
            text = readme if isinstance(readme, str) else readme(manifest)
            _write(folder / README, text.encode("utf-8"))
            _write(folder / BIT_GRID, dump_json(bit_grid))
            manifest = manifest.model_copy(update={"files": _file_records(folder)}).sealed()
            _write(folder / MANIFEST, dump_json(manifest))
            for directory in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
                sync_directory(directory)
            open_pack(folder)
            put_in_place(folder, self.path.absolute())
        self._folder = None
        return manifest

    @property
    def _open_folder(self) -> Path:
        if self._folder is None:
            raise ValueError("the writer is not open")
        return self._folder

    def _check_rotation(self, layer: QuantizedWeight) -> None:
        """Layers of one size share one rotation and one vector of signs."""
        size = layer.in_features
        if size not in self._rotations:
            self._rotations[size] = layer.rotation
            self._signs[size] = layer.signs
            if layer.signs is not None:
                self._spool(signs_name(size), pack_signs(layer.signs))
            return
        known, new = self._signs[size], layer.signs
        same_signs = known is new or (
            known is not None and new is not None and torch.equal(known.cpu(), new.cpu())
        )
        if self._rotations[size] != layer.rotation or not same_signs:
            raise ValueError(f"{layer.name}: another rotation than that of size {size} before it")

    def _spool(
        self,
        name: str,
        tensor: Tensor,
        stored: Header | None = None,
        *,
        of: dict[str, Entry] | None = None,
    ) -> None:
        """Keep a tensor for the transformer's files, or for those that ``of`` collects."""
        entries = self._entries if of is None else of
        if name in entries:
            raise ValueError(f"{name}: added twice")
        if stored is not None:
            entries[name] = _stored_entry(stored, name)
            return
        part = self._open_folder / _PARTS / f"{len(self._entries) + len(self._table):06d}"
        with self._disk_errors(), part.open("wb") as file:
            file.write(tensor_bytes(tensor))
        entries[name] = _part_entry(TensorSpec.of(tensor), part)

    def _write_network(self, folder: Path) -> list[str]:
        """Write the transformer's files and the modulation table; returns their names."""
        names = self._write_transformer(folder)
        if self._table:
            write_safetensors(folder / MODULATION, self._table, _FILE_METADATA)
            names.append(MODULATION)
        return names

    def _write_transformer(self, folder: Path) -> list[str]:
        """Join the parts into one file, or into shards with an index; the parts are gone then."""
        specs = {name: entry.spec for name, entry in self._entries.items()}
        shards = _split(specs, self._shard_bytes)
        if len(shards) == 1:
            names = [TRANSFORMER]
        else:
            names = [shard_name(i + 1, len(shards)) for i in range(len(shards))]
        for file_name, tensors in zip(names, shards, strict=True):
            entries = {name: self._entries[name] for name in tensors}
            write_safetensors(folder / file_name, entries, _FILE_METADATA)
        if len(shards) > 1:
            total = sum(spec.nbytes for spec in specs.values())
            pairs = zip(names, shards, strict=True)
            weight_map = {name: file_name for file_name, tensors in pairs for name in tensors}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            _write(folder / TRANSFORMER_INDEX, format_json(index).encode("utf-8"))
        return names

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            place = f" ({cause.filename})" if cause.filename else ""
            raise ResourceError(
                f"{self.path}: cannot be written: {cause.strerror or cause}{place}",
                hint="free disk space or choose another output; nothing at that path was changed",
            ) from cause


def check_output(path: Path, *, force: bool) -> None:
    """Check that a pack may be written at ``path``.

    Raises:
        UsageError: something is there already and ``force`` is not set, or it is no pack (a
            mistyped path must not delete a photo folder), or somebody's own files lie in it, or the
            directory above does not exist or is a pack itself.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        reason = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise UsageError(f"directory {folder} {reason}")
    if all((folder / name).is_file() for name in (MANIFEST, BIT_GRID)):
        raise UsageError(
            f"{path} would lie inside of the pack {folder}", hint="choose an output beside it"
        )
    if not os.path.lexists(path):
        return
    if not force:
        raise UsageError(f"{path} exists", hint="choose another output, or replace it with --force")
    if path.is_symlink():
        raise UsageError(
            f"{path} is a link, so it is not replaced", hint="name what it points to, or remove it"
        )
    if not (path / MANIFEST).is_file():
        raise UsageError(f"{path} exists and is not a pack, so it is not replaced")
    own = [name for name in other_files(path) if not is_litter(name)]
    if (path / GIT).exists():
        own.append(GIT)
    if own:
        raise UsageError(
            f"{path} holds files that are not the pack's, so it is not replaced:"
            f" {', '.join(own[:SHOWN_NAMES])}",
            hint="move them away, or choose another output",
        )


def remove_stale_partials(path: Path) -> None:
    """Remove what writers that were killed left beside ``path``.

    Only for a caller that holds the output's lock (`artifacts.files.output_lock`): the directory of
    a live writer goes as well.
    """
    prefix = _partial_prefix(path)
    for entry in path.absolute().parent.iterdir():
        if entry.name.startswith(prefix):
            shutil.rmtree(entry, ignore_errors=True)


def _partial_prefix(path: Path) -> str:
    return f".{path.absolute().name}.partial-"


def _umask() -> int:
    # The only portable way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _split(specs: Mapping[str, TensorSpec], shard_bytes: int) -> list[list[str]]:
    """Fill one shard after another, in file order; a larger tensor gets a shard of its own.

    Raises:
        ValueError: that would be more shards than their names can count.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name in file_order(specs):
        size = specs[name].nbytes
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) > MAX_SHARDS:
        raise ValueError(f"{len(shards)} shards of {shard_bytes} bytes")
    return shards


def _stored_entry(stored: Header, name: str) -> Entry:
    return Entry(stored.tensors[name].spec, lambda: [tensor_bytes(stored.read(name))])


def _part_entry(spec: TensorSpec, part: Path) -> Entry:
    def chunks() -> Iterator[bytes]:
        with part.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        part.unlink()  # so that the disk never holds all the tensors twice

    return Entry(spec, chunks)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _file_records(folder: Path) -> dict[str, FileRecord]:
    return {
        path.relative_to(folder).as_posix(): FileRecord(
            bytes=path.stat().st_size, sha256=sha256_of(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != README
    }
