"""An opened pack: what it says, and its tensors when they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation, unpack_signs
from artifacts.codec.layer_parts import expected_tensors
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.family import Architecture, Config
from artifacts.files.safetensors_io import Header
from artifacts.pack.contents import (
    signs_name,
)
from artifacts.pack.file_names import (
    SCHEDULER_FILES,
    SCHEDULER_FOLDER,
    VAE_FILES,
    VAE_FOLDER,
)
from artifacts.pack.modulation import pooled_prompts, table_name
from schemas.bit_grid import BitGrid
from schemas.errors import PackError
from schemas.manifest import Manifest


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
        table_header: header of ``modulation.safetensors``, or None when the pack has none.
    """

    path: Path
    manifest: Manifest
    bit_grid: BitGrid
    architecture: Architecture
    rotations: Mapping[str, Rotation]
    headers: Mapping[str, Header]
    prompt_header: Header | None
    table_header: Header | None = None

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

    def modulation_rows(self, layer: str) -> Tensor:
        """What a modulation layer gives: 16-bit floats [prompts, timesteps, out].

        Rows are in the order of the manifest's `modulation`, and of `pooled_prompts`.

        Raises:
            KeyError: the pack has no table, or the network no such layer.
            PackError: the file changed since the pack was opened.
        """
        if self.table_header is None:
            raise KeyError(f"{self.path} has no table of modulations")
        return self.table_header.read(table_name(layer))

    def pooled_prompts(self) -> Tensor:
        """The pooled prompts that the table has rows of, [prompts, pooled_projection_dim].

        Raises:
            KeyError: the pack has no prompts.
            PackError: the file changed since the pack was opened.
        """
        return torch.stack(list(pooled_prompts(self.prompts() or {}).values()))

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
