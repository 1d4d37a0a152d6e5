"""The modulation table of a pack: what its modulation layers give at its own timesteps and prompts.

Layers that read nothing but timestep and pooled prompt (`artifacts.family.Modulations`) give one
vector per timestep and prompt. A pack that is sampled as it says needs these vectors and not the
layers: `modulation.safetensors` has them, one tensor ``LAYER.table`` [prompts, timesteps, out] for
every such layer, in the order of the manifest's `ModulationRecord`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from artifacts.codec.values import wrong_value
from artifacts.family import Architecture, Shape
from artifacts.files.safetensors_io import Header, read_header, tensor_bytes
from artifacts.pack.difference import check_difference
from artifacts.pack.file_names import MANIFEST, MODULATION, PROMPTS
from schemas.errors import PackError
from schemas.manifest import Manifest

TABLE_DTYPES = ("F16", "BF16")
"""Words of the dtypes that a layer's rows may have."""
TABLE_BITS = 16
"""Of one number of a row, in either dtype."""
_SIDES = ("positive", "negative")


def tabled_tensors(manifest: Manifest, architecture: Architecture) -> frozenset[str]:
    """Parameters of the network that a pack leaves out because it has the table instead."""
    record = manifest.modulation
    if record is None or record.weights:
        return frozenset()
    return architecture.modulations.tensors


def table_name(layer: str) -> str:
    """Name of the tensor with a layer's rows."""
    return f"{layer}.table"


def pooled_prompts(prompts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pooled prompts of a pack, each once, by their SHA-256, in the order of the table's rows.

    Args:
        prompts: embeddings under the names of `Architecture.prompt_shapes`.
    """
    pooled = [prompts[f"{side}.pooled"] for side in _SIDES]
    return {hashlib.sha256(tensor_bytes(tensor)).hexdigest(): tensor for tensor in pooled}


def read_table_header(
    path: Path, manifest: Manifest, architecture: Architecture, prompts: Header | None
) -> Header | None:
    """Header of the modulation table, or None where the pack has none.

    Args:
        path: of the pack.
        manifest: of the pack.
        architecture: the network.
        prompts: header of the prompt embeddings, checked.

    Raises:
        PackError: the file is damaged, or is not what the manifest says, or rows belong to other
            prompts than the pack's.
    """
    record = manifest.modulation
    if (MODULATION in manifest.files) != (record is not None):
        has, lacks = ("files", "modulation") if record is None else ("modulation", "files")
        raise PackError(f"{MANIFEST}: the table of modulations is in {has}, but not in {lacks}")
    if record is None:
        return None
    shapes = _table_shapes(manifest, architecture)
    if prompts is None:
        raise PackError(f"{PROMPTS} is missing: the table of modulations is that of its prompts")
    own = tuple(pooled_prompts({name: prompts.read(name) for name in prompts.tensors}))
    if own != record.prompts:
        raise PackError(f"{MANIFEST}: modulation.prompts are not those of {PROMPTS}")
    header = read_header(path / MODULATION)
    check_difference(header.tensors, shapes, MODULATION, "the network", "tensors")
    for name, shape in shapes.items():
        info = header.tensors[name]
        if info.shape != shape or info.dtype not in TABLE_DTYPES:
            raise PackError(
                f"{MODULATION}: tensor {name} is {info.spec}, but must be"
                f" {' or '.join(TABLE_DTYPES)} {list(shape)}"
            )
        wrong = wrong_value(header.read(name))
        if wrong:
            raise PackError(f"{MODULATION}: tensor {name} has {wrong}")
    return header


def _table_shapes(manifest: Manifest, architecture: Architecture) -> dict[str, Shape]:
    record = manifest.modulation
    layers = architecture.modulations.layers
    if record is None or not layers:
        raise PackError(
            f"{MANIFEST}: modulation: {architecture.family.title} has no layers to table"
        )
    rows = (len(record.prompts), len(record.timesteps))
    return {table_name(name): (*rows, shape.out_features) for name, shape in layers.items()}
