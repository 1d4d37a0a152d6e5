"""A few layers of a pack, on which a backend can show that it computes rightly on a device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.pack.opened import Pack
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import LayerRecord, QuantizerRecord


@dataclass(frozen=True)
class TrialLayer:
    """One layer to try.

    Attributes:
        name: in the pack.
        record: its shape and parts.
        activation_bits: widths that the pack runs it with, the smallest and the largest; those of
            unquantized activations only where there are no others.
    """

    name: str
    record: LayerRecord
    activation_bits: tuple[int, ...]

    @property
    def kind(self) -> str:
        """What decides which kernels run, in words: equal for layers that are tried alike."""
        record = self.record
        return (
            f"{record.out_features}x{record.in_features} W{record.weight_bits}"
            f" A{self.activation_bits} rotation {record.rotation} rank {record.global_rank}"
            f" factors of {record.factor_bits} bits"
            f" blocks {record.local_block} smoothing {record.smoothing}"
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """What a backend is tried with.

    Attributes:
        layers: at most five.
        quantizer: how the pack's activations are quantized.
        dtype: of the layers' inputs.
        read: name -> the layer's record and tensors.
    """

    layers: tuple[TrialLayer, ...]
    quantizer: QuantizerRecord
    dtype: torch.dtype
    read: Callable[[str], QuantizedWeight]


_EXTREMES: tuple[Callable[[LayerRecord], int], ...] = (
    lambda record: record.in_features,
    lambda record: record.out_features,
    lambda record: record.weight_bits,
    lambda record: -record.weight_bits,
    lambda record: record.smoothing,
)


def trial_of(pack: Pack, dtype: torch.dtype) -> Trial:
    """Choose the layers of ``pack``: widest inputs and outputs, most and fewest bits, smoothing."""
    records = {name: pack.manifest.layers[name] for name in pack.layer_names}
    names: dict[str, None] = {}  # in order, each once
    for extreme in _EXTREMES if records else ():
        values = {name: extreme(record) for name, record in records.items()}
        names[max(values, key=values.__getitem__)] = None
    layers = []
    for name in names:
        widths = set(pack.bit_grid.layers[name].activation_bits)
        quantized = widths - {UNQUANTIZED} or widths
        bits = tuple(sorted({min(quantized), max(quantized)}))
        layers.append(TrialLayer(name, records[name], bits))
    return Trial(tuple(layers), pack.manifest.quantizer, dtype, pack.layer)
