"""One finished layer in a file of its own, for a build that may be interrupted.

A sealed file (`artifacts.files.sealed_tensors`): the layer's tensors under the pack's names, and
its manifest record. Rotation and signs are shared between layers and follow from the settings; they
are not here.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from artifacts.codec.hadamard import Rotation
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.files.safetensors_io import Header
from artifacts.files.sealed_tensors import read_sealed, write_sealed
from schemas.errors import PackError
from schemas.json_io import dump_json, read_json_strict, validate
from schemas.manifest import LayerRecord


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
    record_text = dump_json(record).decode("utf-8")
    return write_sealed(path, weight.name, weight.tensors(), record=record_text)


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
    sealed = read_sealed(path, name)
    where = f"{path}: record"
    content = read_json_strict(sealed.record.encode("utf-8"), where=where, error=PackError)
    record = validate(LayerRecord, content, where=where, error=PackError)
    try:
        weight = QuantizedWeight.from_tensors(name, record, sealed.tensors, rotation, signs)
    except (KeyError, ValueError) as cause:
        raise PackError(f"{path}: {cause}") from None
    return StoredLayer(weight, record, sealed.header)
