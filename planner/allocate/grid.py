"""The bit grid of a pack: weight bits as decided, activation bits by VaTMP or uniform."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from planner.allocate.sensitivity import ActivationCosts, sensitive_activation_bits
from planner.allocate.vatmp import allocate_timesteps
from planner.settings import BuildSettings
from schemas.bit_grid import BitGrid, LayerBits
from schemas.bit_widths import UNQUANTIZED
from schemas.calibration import Calibration


def make_grid(
    settings: BuildSettings,
    weight_bits: Mapping[str, int],
    timesteps: Sequence[float],
    calibration: Calibration | None,
    sensitive: ActivationCosts | None = None,
    work: Mapping[str, int] | None = None,
) -> tuple[BitGrid, list[str]]:
    """Decide every layer's activation bits.

    Args:
        settings: target, and how activation bits are decided.
        weight_bits: layer name -> weight bits; a layer of 16 keeps its activations in 16.
        timesteps: of the grid; with a calibration that decides, its own go before them.
        calibration: mean squares of all quantized layers; None for none.
        sensitive: what errors cost at every step, for settings that go by it.
        work: multiply-accumulates of every layer, for a budget that counts them.

    Returns:
        The grid, and a warning where the activation bits had to be rounded down: where nothing
        tells which steps deserve the larger part of a fractional target, all get the smaller.
    """
    asked = settings.target.activation_bits
    quantized = [name for name, bits in weight_bits.items() if bits != UNQUANTIZED]
    warnings = []
    if sensitive is not None and settings.goes_by_sensitivity_over_steps:
        timesteps = sensitive.timesteps
        activations = sensitive_activation_bits(sensitive, asked, work)
    elif calibration is not None and settings.wants_vatmp:
        timesteps = calibration.timesteps
        activations = allocate_timesteps(
            {name: calibration.mean_squares[name] for name in quantized},
            asked,
            segments=settings.segments,
        )
    else:
        if asked != int(asked):
            warnings.append(
                f"activation bits {asked} need a calibration and VaTMP; every step gets"
                f" {int(asked)}"
            )
        activations = dict.fromkeys(quantized, (int(asked),) * len(timesteps))
    layers = {
        name: LayerBits(
            weight_bits=bits,
            activation_bits=activations.get(name, (UNQUANTIZED,) * len(timesteps)),
        )
        for name, bits in weight_bits.items()
    }
    grid = BitGrid(target=settings.target.to_schema(), timesteps=tuple(timesteps), layers=layers)
    return grid, warnings


def mean_activation_bits(grid: BitGrid) -> Fraction:
    """Mean over the quantized layers and all timesteps, exactly."""
    values = [
        bits
        for layer in grid.layers.values()
        if layer.weight_bits != UNQUANTIZED
        for bits in layer.activation_bits
    ]
    return Fraction(sum(values), len(values))


def rounded_down(mean: Fraction) -> int | float:
    """A mean to six decimals for the manifest; down, so that it never exceeds the target."""
    millionths = math.floor(mean * 10**6)
    whole, rest = divmod(millionths, 10**6)
    return millionths / 10**6 if rest else whole
