"""A pack as one file with ComfyUI's quantized layers.

Neither factors nor the pack's rotation nor its activation bits have a place there, so every weight
is coded anew: from the source where that is at hand, or else from what the pack decodes to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.comfy.layouts import INT8, W4A4, block_of, quantize
from artifacts.files.safetensors_io import Entry, write_safetensors
from artifacts.files.whole_file import replacing
from artifacts.pack.modulation import tabled_tensors
from artifacts.pack.reader import Pack
from planner.build.progress import Progress, Silent
from schemas.errors import UsageError

METADATA = "_quantization_metadata"
LAYOUTS = {"auto": None, "8": INT8, "4": W4A4}
"""Option -> layout of every layer; by the pack's bits where it is None."""
FOUR_BITS = 4


@dataclass(frozen=True)
class ExportedLayer:
    """One linear layer of the file.

    Attributes:
        name: of the layer.
        layout: ComfyUI's word; ``bfloat16`` where no layout holds the layer's width.
        error_db: power of the reference weight over that of the error, in dB; None without error.
        pack_error_db: the same of the pack's own weight, where the reference is the source.
    """

    name: str
    layout: str
    error_db: float | None
    pack_error_db: float | None


def export_comfy(
    pack: Pack,
    output: Path,
    *,
    bits: str = "auto",
    source: Checkpoint | None = None,
    progress: Progress | None = None,
) -> list[ExportedLayer]:
    """Write ``output``, whole or not at all. Memory holds it and one layer in float32.

    Args:
        pack: what is exported.
        output: a ``.safetensors`` file.
        bits: a key of `LAYOUTS`; ``auto`` is 4 bits where the pack has no more and the width fits.
        source: the checkpoint that the pack was made from, to code its weights.
        progress: is told of layers.

    Raises:
        CheckpointError: a tensor of the source is damaged.
        PackError: a file changed since the pack was opened.
        UsageError: the pack has a table in place of layers, and there is no source.
        OSError: from the file system.
    """
    tabled = tabled_tensors(pack.manifest, pack.architecture)
    if tabled and source is None:
        raise UsageError(
            f"{pack.path} has a table in place of {len(tabled)} tensors",
            hint="give --checkpoint with the pack's source",
        )
    tensors: dict[str, Tensor] = {}
    markers: dict[str, object] = {}
    exported = []
    for name in (progress or Silent()).track(pack.layer_names, "export"):
        layer = pack.layer(name)
        own = layer.decode(torch.float32)
        weight = own if source is None else source.tensor(f"{name}.weight").float()
        layout = _layout(LAYOUTS[bits], layer.weight_bits, weight.shape[1])
        if layer.bias is not None:
            bias = layer.bias if source is None else source.tensor(f"{name}.bias")
            tensors[f"{name}.bias"] = bias.bfloat16()
        if layout is None:
            tensors[f"{name}.weight"] = weight.bfloat16()
            decoded = weight.bfloat16().float()
        else:
            coded = quantize(weight, layout)
            tensors[f"{name}.weight"] = coded.codes
            tensors[f"{name}.weight_scale"] = coded.scale
            markers[name] = coded.marker
            text = json.dumps(coded.marker).encode()
            tensors[f"{name}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
            decoded = coded.decode()
        pack_error = None if source is None else _decibels(weight, own)
        exported.append(
            ExportedLayer(name, layout or "bfloat16", _decibels(weight, decoded), pack_error)
        )
    tensors |= {name: pack.tensor(name) for name in pack.tensor_names}
    if source is not None:
        tensors |= {name: source.tensor(name).bfloat16() for name in sorted(tabled)}
    rebuilt = pack.architecture.family.rebuilt
    for name in pack.manifest.rebuilt:
        tensors[name] = rebuilt[name].build(pack.architecture.config).bfloat16()
    content = {"format_version": "1.0", "layers": markers}
    metadata = {"format": "pt", METADATA: json.dumps(content), "qpack": pack.manifest.checksum}
    with replacing(output) as partial:
        write_safetensors(partial, {n: Entry.of(t) for n, t in tensors.items()}, metadata)
    return exported


def mean_decibels(values: Sequence[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _layout(asked: str | None, weight_bits: int, columns: int) -> str | None:
    """Which layout holds a layer; None for none."""
    wanted = asked or (W4A4 if weight_bits <= FOUR_BITS else INT8)
    for layout in (wanted, INT8):
        if block_of(columns, layout) is not None:
            return layout
    return None


def _decibels(reference: Tensor, other: Tensor) -> float | None:
    error = float((reference - other).double().square().sum())
    power = float(reference.double().square().sum())
    return None if error == 0 or power == 0 else 10 * float(torch.tensor(power / error).log10())
