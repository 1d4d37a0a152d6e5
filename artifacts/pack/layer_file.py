"""One finished layer in a file of its own, for a build that may be interrupted.

A safetensors file: the layer's tensors under the pack's names, and in the metadata its manifest
record and a SHA-256 over both. Rotation and signs are shared between layers and follow from the
settings; they are not here.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from artifacts.codec.hadamard import Rotation
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.files.safetensors_io import (
    Entry,
    Header,
    TensorSpec,
    read_header,
    tensor_bytes,
    write_safetensors,
)
from artifacts.files.whole_file import replacing
from schemas.errors import PackError
from schemas.json_io import dump_json, read_json_strict, validate
from schemas.manifest import LayerRecord

_RECORD = "record"
_DIGEST = "sha256"


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A layer that was read back.

    Attributes:
        weight: the layer.
        record: its entry in the manifest.
        header: of the file, to read its tensors from again.
    """

    weight: QuantizedWeight
    record: LayerRecord
    header: Header


def write_layer(path: Path, weight: QuantizedWeight, record: LayerRecord) -> Header:
    """Write a layer, whole or not at all; returns the header of the file.

    Raises:
        OSError: from the file system.
    """
    tensors = weight.tensors()
    text = dump_json(record).decode("utf-8")
    metadata = {_RECORD: text, _DIGEST: _digest(weight.name, text, tensors)}
    with replacing(path, sole_writer=True) as partial:
        write_safetensors(partial, {n: Entry.of(t) for n, t in tensors.items()}, metadata)
    return read_header(path)


def read_layer(path: Path, name: str, rotation: Rotation, signs: Tensor | None) -> StoredLayer:
    """Read the layer called ``name`` back, and check every byte of it.

    Args:
        path: the file.
        name: the layer's name in the network.
        rotation: of its inputs.
        signs: of its rotation, float32 [in], or None.

    Raises:
        PackError: the file is missing, damaged, or of another layer.
    """
    header = read_header(path)
    text = header.metadata.get(_RECORD, "")
    tensors = {tensor: header.read(tensor) for tensor in header.tensors}
    if header.metadata.get(_DIGEST) != _digest(name, text, tensors):
        raise PackError(f"{path}: not the layer {name}, or damaged")
    content = read_json_strict(text.encode("utf-8"), where=f"{path}: record", error=PackError)
    record = validate(LayerRecord, content, where=f"{path}: record", error=PackError)
    try:
        weight = QuantizedWeight.from_tensors(name, record, tensors, rotation, signs)
    except (KeyError, ValueError) as cause:
        raise PackError(f"{path}: {cause}") from None
    return StoredLayer(weight, record, header)


def _digest(name: str, record: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the layer's name, its record, and every tensor's name, dtype, shape, bytes."""
    digest = hashlib.sha256(f"{name}\n{record}\n".encode())
    for tensor in sorted(tensors):
        digest.update(f"{tensor} {TensorSpec.of(tensors[tensor])}\n".encode())
        digest.update(tensor_bytes(tensors[tensor]))
    return digest.hexdigest()
