"""One layer on its way into a pack: rotate, factorise, quantize what is left, measure the error."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.bitpack import pack_codes
from artifacts.gaussian_quantizer import quantize_rows
from artifacts.hadamard import Rotation, random_signs
from artifacts.quantized_weight import QuantizedWeight
from planner.hsvd import decompose
from planner.settings import BuildSettings
from schemas.manifest import LayerRecord


@dataclass(frozen=True)
class QuantizedLayer:
    """A finished layer: what goes into the pack, and what the manifest says of it."""

    weight: QuantizedWeight
    record: LayerRecord


def rotation_for(in_features: int, settings: BuildSettings) -> tuple[Rotation, Tensor | None]:
    """The rotation of inputs of one size, and its signs, float32 [in_features], or None."""
    if not settings.rotation:
        return Rotation.identity(in_features), None
    rotation = Rotation.for_size(in_features)
    if rotation.is_identity or not settings.rotation_signs:
        return rotation, None
    return rotation, random_signs(in_features, settings.seed)


def rotate(weight: Tensor, settings: BuildSettings) -> Tensor:
    """``W_H``: the rows of ``weight`` [out, in] rotated, float32."""
    rotation, signs = rotation_for(weight.shape[1], settings)
    return rotation.apply(weight.float(), signs)


def mean_row_variance(rotated: Tensor) -> float:
    """Mean over output channels of the variance of ``W_H``'s row (Eq. 12): VaSMP's statistic."""
    return float(rotated.var(dim=1, unbiased=False).mean(dtype=torch.float64))


def quantize_layer(
    name: str, weight: Tensor, bias: Tensor | None, bits: int, settings: BuildSettings
) -> QuantizedLayer:
    """Quantize one layer.

    Args:
        name: the layer's name.
        weight: [out, in], any float dtype, finite.
        bias: [out], or None.
        bits: weight bits, 1 ... 8.
        settings: ranks, rotation and seed.

    Returns:
        The layer; its record holds the decoding error as a signal-to-noise ratio in dB, or None
        where there is no error at all, as for a weight of zeros.
    """
    rotation, signs = rotation_for(weight.shape[1], settings)
    rotated = rotation.apply(weight.float(), signs)
    factors = decompose(
        rotated,
        global_rank=settings.global_rank,
        local_rank=settings.local_rank,
        seed=settings.seed,
    )
    codes, scale = quantize_rows(factors.residual, bits)
    quantized = QuantizedWeight(
        name=name,
        out_features=weight.shape[0],
        in_features=weight.shape[1],
        weight_bits=bits,
        codes=pack_codes(codes, bits),
        scale=scale,
        rotation=rotation,
        global_up=factors.global_up,
        global_down=factors.global_down,
        local_up=factors.local_up,
        local_down=factors.local_down,
        bias=None if bias is None else bias.to(torch.bfloat16),
        signs=signs,
    )
    error_db = signal_to_noise_db(rotated, quantized.decode_rotated(torch.float32))
    return QuantizedLayer(
        quantized,
        quantized.record(
            error_db=error_db,
            global_energy=round(factors.global_energy, 6),
            local_energy=round(factors.local_energy, 6),
            note="; ".join(filter(None, [factors.note, "" if rotated.any() else "all zeros"])),
        ),
    )


def signal_to_noise_db(signal: Tensor, approximation: Tensor) -> float | None:
    """``10 log10(|signal|^2 / |signal - approximation|^2)`` in dB, to 0.001; None for no noise.

    The rotation is orthonormal, so this is the same before and after it.
    """
    # Norms in float64: squares of tiny float32 numbers would vanish.
    noise = float(torch.linalg.vector_norm(signal - approximation, dtype=torch.float64))
    power = float(torch.linalg.vector_norm(signal, dtype=torch.float64))
    return round(20 * math.log10(power / noise), 3) if noise and power else None
