"""One layer on its way into a pack: smooth or rotate, factorise, quantize the rest, measure."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.gaussian_quantizer import dequantize_rows
from artifacts.codec.hadamard import Rotation, random_signs
from artifacts.codec.quantized_weight import QuantizedWeight
from planner.settings import BuildSettings
from planner.weights.effort import EFFORTS
from planner.weights.gptq import gptq_weight_rows
from planner.weights.hsvd import HierarchicalFactors, decompose
from planner.weights.moment_root import MomentRoot
from planner.weights.output_fit import fit_to_outputs
from planner.weights.row_energy import energy, row_chunks, row_energies
from planner.weights.row_scales import QuantizedRows, quantize_weight_rows
from planner.weights.smoothing import choose_smoothing
from schemas.calibration import ChannelStatistics
from schemas.manifest import LayerRecord


@dataclass(frozen=True)
class QuantizedLayer:
    """A finished layer: what goes into the pack, and what the manifest says of it."""

    weight: QuantizedWeight
    record: LayerRecord


def rotation_for(in_features: int, settings: BuildSettings) -> tuple[Rotation, Tensor | None]:
    """The rotation of inputs of one size, and its signs, float32 [in_features], or None.

    On the CPU.
    """
    if not settings.rotation:
        return Rotation.identity(in_features), None
    rotation = Rotation.for_size(in_features)
    if rotation.is_identity or not settings.rotation_signs:
        return rotation, None
    return rotation, random_signs(in_features, settings.seed)


def rotate(weight: Tensor, settings: BuildSettings) -> Tensor:
    """``W_H``: the rows of ``weight`` [out, in] rotated, float32, in memory of its own."""
    rotation, signs = rotation_for(weight.shape[1], settings)
    signs = None if signs is None else signs.to(weight.device)
    rotated = torch.empty_like(weight, dtype=torch.float32)
    for part in row_chunks(weight.shape):
        rotated[part] = rotation.apply(weight[part], signs)
    return rotated


def mean_row_variance(weight: Tensor, rotation: Rotation, signs: Tensor | None) -> float:
    """Mean over output channels of the variance of ``W_H``'s row (Eq. 12): VaSMP's statistic.

    Without rotating anything: H is orthonormal, so a row keeps its squared norm, and the mean of
    a rotated row, ``w diag(signs) H 1 / n``, is a product with one vector.

    Args:
        weight: [out, in], not rotated.
        rotation: of its rows.
        signs: float32 [in], or None.
    """
    size = weight.shape[1]
    ones = torch.ones(size, dtype=torch.float64, device=weight.device)
    averaging = (rotation.invert(ones, signs) / size).float()
    total = 0.0
    for part in row_chunks(weight.shape):
        rows = weight[part].float()
        variances = row_energies(rows) / size - (rows @ averaging).double().square()
        total += float(variances.clamp_min_(0).sum())
    return total / len(weight)


def allocation_variance(weight: Tensor, settings: BuildSettings) -> float:
    """What VaSMP reads of ``weight`` [out, in]: `mean_row_variance` of what the settings name."""
    if settings.weight_statistic == "residual":
        residual = _factors(rotate(weight, settings), settings).residual
        return mean_row_variance(residual, Rotation.identity(weight.shape[1]), None)
    return mean_row_variance(weight, *rotation_for(weight.shape[1], settings))


def planned_record(
    out_features: int,
    in_features: int,
    bits: int,
    settings: BuildSettings,
    *,
    balanced: bool | None = None,
) -> LayerRecord:
    """The record `quantize_layer` will give, as far as it does not depend on the weight.

    That is without SVD-L, whose block shape does, and without measured values. A decomposition that
    fails leaves its factors out. Where settings balance, ``balanced`` says whether this layer is;
    by default it is.
    """
    rotation, _ = rotation_for(in_features, settings)
    return LayerRecord(
        weight_bits=bits,
        in_features=in_features,
        out_features=out_features,
        rotation="none" if rotation.is_identity else str(in_features),
        global_rank=min(settings.global_rank, out_features, in_features),
        factor_bits=settings.factor_bits if settings.global_rank or settings.local_rank else 16,
        smoothing=settings.searches_smoothing or (settings.balances and balanced is not False),
    )


def quantize_layer(
    name: str,
    weight: Tensor,
    bias: Tensor | None,
    bits: int,
    settings: BuildSettings,
    channels: ChannelStatistics | None = None,
    moment: Tensor | None = None,
    smoothing: Tensor | None = None,
) -> QuantizedLayer:
    """Quantize one layer.

    Args:
        name: the layer's name.
        weight: [out, in], any float dtype, finite; the device it lies on computes.
        bias: [out], or None.
        bits: weight bits, 1 ... 8.
        settings: ranks, rotation, scale rules and seed.
        channels: statistics of the layer's input; needed by settings that search the smoothing.
        moment: second moment of the layer's input, float32 [in, in], up to a factor; needed by
            settings that round or fit factors by it.
        smoothing: float32 [in], positive, for settings that balance; None leaves the layer without.

    Returns:
        The layer, on the CPU; its record holds the decoding error as a signal-to-noise ratio in dB,
        or None where there is no error at all, as for a weight of zeros.

    Raises:
        ValueError: the settings search the smoothing and there are no statistics, or of other
            channels; or they go by second moments of outputs, and there is none.
    """
    if settings.searches_smoothing:
        smoothing = _searched_smoothing(name, weight, bits, settings, channels)
    rotation, signs = rotation_for(weight.shape[1], settings)
    rotated = rotate(weight if smoothing is None else weight * smoothing, settings)
    factors = _factors(rotated, settings)  # overwrites its argument
    root = None
    if settings.goes_by_outputs:
        if moment is None:
            raise ValueError(f"layer {name}: its settings need the second moment of its input")
        root = MomentRoot.of(rotated_moment(moment.to(weight.device), settings, smoothing))
    factors, (codes, scale, squared_error) = _fitted(factors, bits, settings, root)
    # A rotation changes no norm, so by itself it need not be undone; a smoothing does.
    signal, noise = factors.energy, float(squared_error.sum())
    if smoothing is not None:
        signal = energy(weight.float())
        error = dequantize_rows(codes, scale, bits) - factors.residual
        noise = energy(rotation.invert(error, signs) / smoothing)
    quantized = QuantizedWeight(
        name=name,
        out_features=weight.shape[0],
        in_features=weight.shape[1],
        weight_bits=bits,
        codes=pack_codes(codes, bits).cpu(),
        scale=scale.cpu(),
        rotation=rotation,
        token_step=1.0,
        **{part: None if t is None else t.cpu() for part, t in factors.parts().items()},
        bias=None if bias is None else bias.to(torch.bfloat16),
        signs=signs,
        smoothing=None if smoothing is None else smoothing.cpu(),
    )
    return QuantizedLayer(
        quantized,
        quantized.record(
            error_db=signal_to_noise_db(signal, noise),
            global_energy=round(factors.global_energy, 6),
            local_energy=round(factors.local_energy, 6),
            note="; ".join(filter(None, [factors.note, "" if signal else "all zeros"])),
        ),
    )


def rotated_moment(moment: Tensor, settings: BuildSettings, smoothing: Tensor | None) -> Tensor:
    """Second moment of ``z = (x / smoothing · signs) H`` where ``moment`` is that of x.

    Args:
        moment: float32 [in, in].
        settings: of the rotation.
        smoothing: float32 [in], or None.
    """
    if smoothing is not None:
        moment = moment / smoothing / smoothing[:, None]
    # One side after the other; the moment is symmetric.
    return rotate(rotate(moment, settings).mT.contiguous(), settings)


def _fitted(
    factors: HierarchicalFactors, bits: int, settings: BuildSettings, root: MomentRoot | None
) -> tuple[HierarchicalFactors, QuantizedRows]:
    """The residual as codes, and the factors that go with them.

    ``root`` is of the moment of what the residual is multiplied with.
    """

    def rounded(residual: Tensor) -> QuantizedRows:
        return _rounded(residual, bits, settings, root)

    if root is None or not settings.fits_factors_to_outputs:
        return factors, rounded(factors.residual)
    effort = EFFORTS[settings.effort]
    return fit_to_outputs(
        factors,
        root,
        bits,
        rounded,
        turns=effort.fits,
        tolerance=effort.tolerance,
        seed=settings.seed,
    )


def _rounded(
    residual: Tensor, bits: int, settings: BuildSettings, root: MomentRoot | None
) -> QuantizedRows:
    if not settings.rounds_by_moments:
        return quantize_weight_rows(residual, bits, settings.weight_scale)
    search = EFFORTS[settings.effort].search_rounding
    return gptq_weight_rows(residual, root, bits, settings.weight_scale, search=search)


def _factors(rotated: Tensor, settings: BuildSettings) -> HierarchicalFactors:
    """The factors of ``rotated``, whose memory becomes the residual's."""
    return decompose(
        rotated,
        global_rank=settings.global_rank,
        local_rank=settings.local_rank,
        factor_bits=settings.factor_bits,
        seed=settings.seed,
        effort=EFFORTS[settings.effort],
        overwrite=True,
    )


def _searched_smoothing(
    name: str,
    weight: Tensor,
    bits: int,
    settings: BuildSettings,
    channels: ChannelStatistics | None,
) -> Tensor:
    """The smoothing vector float32 [in] of a weight that will not be rotated."""
    if channels is None:
        raise ValueError(f"layer {name}: smoothing needs statistics of its input")

    def quantize(smoothed: Tensor) -> tuple[Tensor, Tensor]:
        residual = _factors(smoothed, settings).residual
        codes, scale, _ = quantize_weight_rows(residual, bits, settings.weight_scale)
        return residual, residual - dequantize_rows(codes, scale, bits)

    return choose_smoothing(
        weight.float(),
        channels,
        quantize,
        activation_bits=int(settings.target.activation_bits),
        activation_scale=settings.activation_scale,
    )


def signal_to_noise_db(signal: float, noise: float) -> float | None:
    """``10 log10(signal / noise)`` of two squared norms in dB, to 0.001; None for no noise."""
    return round(10 * math.log10(signal / noise), 3) if noise and signal else None
