"""Bits that a weight takes once everything beside its code is counted."""

from collections.abc import Mapping

from artifacts.codec.layer_parts import expected_parts
from artifacts.pack.modulation import TABLE_BITS
from artifacts.pack.reader import Pack
from schemas.manifest import LayerRecord

FACTOR_BITS = 16
"""Of factors: a pack holds them in bfloat16, and so does a peer in a 16-bit model."""


def stored_bits_of_pack(pack: Pack) -> float:
    """Mean bits per weight of the layers that a pack quantizes or tables: codes, factors, table.

    Biases are left out, here as for the peer.
    """
    layers = {name: r for name, r in pack.manifest.layers.items() if r.is_quantized}
    stored = stored_bits_per_weight(layers)
    record, linears = pack.manifest.modulation, pack.architecture.quantizable
    if record is None:
        return stored
    weights = sum(r.out_features * r.in_features for r in layers.values())
    tabled = [linears[n] for n in pack.architecture.modulations.layers if n in linears]
    rows = len(record.prompts) * len(record.timesteps)
    table = TABLE_BITS * rows * sum(shape.out_features for shape in tabled)
    absent = 0 if record.weights else sum(s.out_features * s.in_features for s in tabled)
    return (stored * weights + table) / (weights + absent)


def stored_bits_per_weight(layers: Mapping[str, LayerRecord]) -> float:
    """Mean bits per quantized weight: all parts of a layer, codes with their padding.

    Biases are left out, here as for the peer: every network has them. So are the rotation's signs,
    one bit per input of every size, less than 0.001 bits a weight.
    """
    bits = weights = 0
    for record in layers.values():
        if not record.is_quantized:
            continue
        for spec in expected_parts(record, has_bias=False).values():
            bits += 8 * spec.nbytes
        weights += record.out_features * record.in_features
    return bits / weights
