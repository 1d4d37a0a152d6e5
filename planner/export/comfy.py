"""A pack as one file with ComfyUI's quantized layers.

Neither factors nor the pack's rotation nor its activation bits have a place there, so every weight
is coded anew: from the source where that is at hand, or else from what the pack decodes to.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.comfy.codebook import (
    W4A8,
    CodebookWeight,
    block_for_codebook,
    quantize_to_codebook,
)
from artifacts.comfy.layouts import INT8, W4A4, ComfyWeight, block_of, quantize
from artifacts.files.partial_file import partial_file
from artifacts.files.safetensors_io import Entry, write_safetensors
from artifacts.files.whole_file import replacing
from artifacts.pack.modulation import tabled_tensors
from artifacts.pack.reader import Pack
from planner.build.progress import Progress, Silent
from schemas.errors import ResourceError, UsageError

METADATA = "_quantization_metadata"
WEIGHT_BITS = ("auto", "8", "4")
ACTIVATION_BITS = ("auto", "8", "4")
FOUR_BITS = 4
NEARER_TO_EIGHT = 6
FOUR_BIT_LAYOUTS = {"8": W4A8, "4": W4A4}
"""Activation bits -> layout of weights of 4 bits."""


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
    activation_bits: str = "auto",
    source: Checkpoint | None = None,
    progress: Progress | None = None,
) -> list[ExportedLayer]:
    """Write ``output``, whole or not at all. Memory holds it and one layer in float32.

    Args:
        pack: what is exported.
        output: a ``.safetensors`` file.
        bits: one of `WEIGHT_BITS`; ``auto`` is 4 where the pack has no more and the width fits.
        activation_bits: one of `ACTIVATION_BITS`, of layers whose weights get 4; ``auto`` is the
            nearer to the pack's mean.
        source: the checkpoint that the pack was made from, to code its weights.
        progress: is told of layers.

    Raises:
        CheckpointError: a tensor of the source is damaged.
        PackError: a file changed since the pack was opened.
        ResourceError: the file cannot be written; where its folder allows none, before the work.
        UsageError: the pack has a table in place of layers, and there is no source; or there will
            be no layer that ``activation_bits`` is for.
    """
    if bits == "8" and activation_bits != "auto":
        raise UsageError(
            f"activation bits {activation_bits}: they are of layers with 4-bit weights, and all"
            " get 8",
            hint="choose either; inputs of 8-bit weights have 8 bits",
        )
    tabled = tabled_tensors(pack.manifest, pack.architecture)
    if tabled and source is None:
        raise UsageError(
            f"{pack.path} has a table in place of {len(tabled)} tensors",
            hint="give --checkpoint with the pack's source",
        )
    if activation_bits == "auto":
        activation_bits = "4" if pack.manifest.reached.activation_bits < NEARER_TO_EIGHT else "8"
    four_bits = FOUR_BIT_LAYOUTS[activation_bits]
    with _written(output), partial_file(output.absolute().parent):
        pass
    tensors: dict[str, Tensor] = {}
    markers: dict[str, object] = {}
    exported = []
    for name in (progress or Silent()).track(pack.layer_names, "export"):
        layer = pack.layer(name)
        own = layer.decode(torch.float32)
        weight = own if source is None else source.tensor(f"{name}.weight").float()
        few = bits == "4" or (bits == "auto" and layer.weight_bits <= FOUR_BITS)
        layout = _layout(four_bits if few else INT8, weight.shape[1])
        if layer.bias is not None:
            bias = layer.bias if source is None else source.tensor(f"{name}.bias")
            tensors[f"{name}.bias"] = bias.bfloat16()
        if layout is None:
            tensors[f"{name}.weight"] = weight.bfloat16()
            decoded = weight.bfloat16().float()
        else:
            coded = _coded(weight, layout)
            tensors |= {f"{name}.{part}": tensor for part, tensor in coded.tensors.items()}
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
    with _written(output), replacing(output) as partial:
        write_safetensors(partial, {n: Entry.of(t) for n, t in tensors.items()}, metadata)
    return exported


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """Errors of the file system name ``output``, not the hidden file beside it."""
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{output}: could not be written ({error.strerror})") from error


def mean_decibels(values: Sequence[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _layout(wanted: str, columns: int) -> str | None:
    """Which layout holds a layer of this width, rather the one that is wanted; None for none."""
    for layout in (wanted, INT8):
        block = block_for_codebook(columns) if layout == W4A8 else block_of(columns, layout)
        if block is not None:
            return layout
    return None


def _coded(weight: Tensor, layout: str) -> ComfyWeight | CodebookWeight:
    return quantize_to_codebook(weight) if layout == W4A8 else quantize(weight, layout)


def _decibels(reference: Tensor, other: Tensor) -> float | None:
    error = float((reference - other).double().square().sum())
    power = float(reference.double().square().sum())
    return None if error == 0 or power == 0 else 10 * float(torch.tensor(power / error).log10())
