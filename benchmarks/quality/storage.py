"""Bits that a weight takes once everything beside its code is counted."""

from collections.abc import Mapping

from artifacts.codec.quantized_weight import expected_tensors
from schemas.manifest import LayerRecord

FACTOR_BITS = 16
"""Of factors: a pack holds them in bfloat16, and so does a peer in a 16-bit model."""


def stored_bits_per_weight(layers: Mapping[str, LayerRecord]) -> float:
    """Mean bits per quantized weight: codes with their padding, scales, factors, smoothing.

    Biases are left out, here as for the peer: every network has them. So are the rotation's signs,
    one bit per input of every size, less than 0.001 bits a weight.
    """
    bits = weights = 0
    for name, record in layers.items():
        if not record.is_quantized:
            continue
        for spec in expected_tensors(name, record, has_bias=False).values():
            bits += 8 * spec.nbytes
        weights += record.out_features * record.in_features
    return bits / weights
