"""Mean bits over multiply-accumulates: what products cost where narrower ones are cheaper.

A mean over weights counts a layer that a few text tokens pass like one that all image tokens pass.
The work of a forward pass does not: a product of w-bit and a-bit numbers is w * a bit operations,
so the mean of w * a over multiply-accumulates is what a machine with 4-bit units goes by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.settings import BuildSettings


@dataclass(frozen=True)
class MeanBits:
    """Means over the quantized layers of one forward pass.

    Attributes:
        weights: weight bits, every weight counting once.
        weights_by_work, activations_by_work: every multiply-accumulate counting once.
        bit_operations: of one multiply-accumulate on average; None where activation bits of layers
            and steps are decided by sensitivities, which a build has to find. (VaTMP gives every
            layer the target's mean over steps, and all steps are as much work.)
    """

    weights: float
    weights_by_work: float
    activations_by_work: float | None
    bit_operations: float | None


def mean_bits_over_work(
    weight_bits: Mapping[str, int],
    parameters: Mapping[str, int],
    macs: Mapping[str, int],
    settings: BuildSettings,
) -> MeanBits:
    """Weigh the bits of quantized layers by what they multiply.

    Args:
        weight_bits: of every quantized layer.
        parameters: of every layer, its weights.
        macs: of every layer, multiply-accumulates of one forward pass.
        settings: of the build.
    """
    weights = _mean(weight_bits, parameters)
    by_work = _mean(weight_bits, macs)
    if settings.goes_by_sensitivity_over_steps:
        return MeanBits(weights, by_work, None, None)
    activations = settings.target.activation_bits
    return MeanBits(weights, by_work, activations, by_work * activations)


def _mean(bits: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Of ``bits``, weighted by ``sizes``; of layers that nothing passes, as if all were equal."""
    total = sum(sizes[name] for name in bits)
    if not total:
        return sum(bits.values()) / len(bits)
    return sum(width * sizes[name] for name, width in bits.items()) / total
