"""What every layer of a pack takes on disk, part by part."""

from collections.abc import Mapping
from math import prod

from artifacts.codec.layer_parts import LAYER_PARTS, expected_parts
from artifacts.files.safetensors_io import TensorInfo
from artifacts.pack.reader import Pack
from schemas.manifest import LayerRecord

UNQUANTIZED = "unquantized"
GROUPS = {
    "codes": ("codes",),
    "scales": ("scale", "smoothing"),
    "global factors": ("global_up", "global_down", "global_scale"),
    "local factors": ("local_up", "local_down", "local_scale"),
    UNQUANTIZED: ("bias", "weight"),
}
"""Heading -> the tensors of a layer that it sums up. A layer in 16 bits has weight and bias."""
_GROUP_OF = {part: group for group, parts in GROUPS.items() for part in parts}


def stored_tensors(pack: Pack) -> dict[str, TensorInfo]:
    """Every tensor of the transformer's files, by name."""
    return {n: i for header in pack.headers.values() for n, i in header.tensors.items()}


def layer_bytes(name: str, tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Bytes of the layer called ``name``, by the headings of `GROUPS`, all of them.

    Args:
        name: a layer of the manifest.
        tensors: as `stored_tensors` has them.
    """
    sizes = dict.fromkeys(GROUPS, 0)
    for part in (*LAYER_PARTS, "weight"):
        info = tensors.get(f"{name}.{part}")
        if info is not None:
            sizes[_GROUP_OF[part]] += info.nbytes
    return sizes


def other_bytes(pack: Pack) -> dict[str, int]:
    """Bytes of everything in the pack that belongs to no layer: heading -> bytes, none of them 0.

    Files beside the transformer's count with their headers; together with the layers' tensors this
    is the pack, but for the headers of the transformer's own files.
    """
    tensors = stored_tensors(pack)
    own = {f"{name}.{part}" for name in pack.manifest.layers for part in (*LAYER_PARTS, "weight")}
    found = {"other tensors of the network": sum(tensors[n].nbytes for n in tensors.keys() - own)}
    for name, record in pack.manifest.files.items():
        if name not in pack.headers:
            heading = name.partition("/")[0]
            found[heading] = found.get(heading, 0) + record.bytes
    return {heading: size for heading, size in found.items() if size}


def factor_numbers(record: LayerRecord) -> int:
    """How many numbers both factors of a layer have: multiply-accumulates of a token in them."""
    if not record.is_quantized:
        return 0
    specs = expected_parts(record, has_bias=False)
    factors = ("global_up", "global_down", "local_up", "local_down")
    return sum(prod(specs[part].shape) for part in factors if part in specs)
