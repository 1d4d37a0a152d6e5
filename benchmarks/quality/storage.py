"""Bits that a weight takes once everything beside its code is counted."""

from collections.abc import Mapping

from artifacts.codec.layer_parts import expected_parts
from schemas.manifest import LayerRecord

FACTOR_BITS = 16
"""Of factors: a pack holds them in bfloat16, and so does a peer in a 16-bit model."""


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
