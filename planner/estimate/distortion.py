"""The error to expect before anything is built, by the quantizer's Gaussian model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifacts.codec.gaussian_quantizer import gaussian_level
from planner.allocate.vasmp import LayerStatistics
from schemas.bit_widths import UNQUANTIZED


@dataclass(frozen=True)
class Distortion:
    """Expected signal-to-noise ratios in dB by the Gaussian model: an error is kappa(b) * variance.

    They leave out what the factor branches gain, since that depends on the weights: a build can
    only be better than this, if its weights and activations are Gaussian after the rotation and
    its scales are the Gaussian quantizer's.

    Attributes:
        weights_db: energy of all quantized weights over the energy of their error; None when every
            weight is zero, which quantizes without error.
        activations_db: the same of a layer's input; None when activations stay unquantized.
        layer_output_db: of a layer's output with both errors, which are independent; None without
            any error.
        from_weights: whether variances of real weights went in. Without them all layers count as
            having the same variance, so a mixed allocation shows no gain.
    """

    weights_db: float | None
    activations_db: float | None
    layer_output_db: float | None
    from_weights: bool


def predict_distortion(
    statistics: Sequence[LayerStatistics],
    bits: Mapping[str, int],
    activation_bits: int | float,
    *,
    from_weights: bool,
) -> Distortion:
    """Predict the error of layers with these variances.

    Args:
        statistics: of every quantized layer.
        bits: layer name -> weight bits.
        activation_bits: mean over timesteps.
        from_weights: whether the variances are those of real weights.
    """
    energy = math.fsum(layer.parameters * layer.variance for layer in statistics)
    error = math.fsum(
        layer.parameters * layer.variance * gaussian_level(bits[layer.name]).mse
        for layer in statistics
    )
    weights = error / energy if energy else 0.0
    activations = relative_error(activation_bits)
    return Distortion(
        weights_db=_decibels_or_none(weights),
        activations_db=_decibels_or_none(activations),
        layer_output_db=_decibels_or_none(weights + activations + weights * activations),
        from_weights=from_weights,
    )


def relative_error(mean_bits: int | float) -> float:
    """Mean of kappa(b) over timesteps whose bits b average ``mean_bits``.

    Between whole numbers some timesteps have the lower width and some the upper, so the error
    lies on the chord. Unquantized (16 bits) counts as no error.
    """
    if mean_bits == UNQUANTIZED:
        return 0.0
    lower = math.floor(mean_bits)
    share = mean_bits - lower
    error = (1 - share) * gaussian_level(lower).mse
    return error + share * gaussian_level(lower + 1).mse if share else error


def decibels(relative_error: float) -> float:
    """Signal-to-noise ratio in dB of an error relative to the signal's energy, above 0."""
    return -10 * math.log10(relative_error)


def _decibels_or_none(relative_error: float) -> float | None:
    return decibels(relative_error) if relative_error else None
