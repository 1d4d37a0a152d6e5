"""The spatio-temporal bit grid: the bits of every quantized layer, per timestep for activations."""

import itertools
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    FailFast,
    Field,
    WithJsonSchema,
    model_validator,
)

from schemas.bit_widths import BIT_WIDTHS, UNQUANTIZED
from schemas.bounds import at_most
from schemas.strict import StrictModel

MAX_TIMESTEPS = 10000
LAST_TIMESTEP = 1000.0
"""The timestep of pure noise, as diffusers' schedulers count."""
MAX_LAYERS = 10_000
"""Far above any network (585 at 2.7 billion parameters); bounds what a hostile file can cost."""


def _known_width(bits: int) -> int:
    if bits not in BIT_WIDTHS:
        raise ValueError(f"{bits} bits; it must be 1 to 8, or {UNQUANTIZED} for unquantized")
    return bits


# Not a Literal: that compares by value, and would let True and 1.0 pass for 1.
Bits = Annotated[
    int,
    AfterValidator(_known_width),
    WithJsonSchema({"type": "integer", "enum": list(BIT_WIDTHS)}),
]
"""Width of one code, or `UNQUANTIZED`."""
VersionOne = Annotated[int, Field(ge=1, le=1)]
# Both types, so that a plain 4 is written back as 4 and a mean such as 3.98 is possible.
MeanBits = Annotated[int | float, Field(gt=0, le=UNQUANTIZED)]


def _descending(timesteps: tuple[float, ...]) -> tuple[float, ...]:
    for index, (before, after) in enumerate(itertools.pairwise(timesteps)):
        if after >= before:
            raise ValueError(
                f"timesteps must descend, but step {index} is {before} and step"
                f" {index + 1} is {after}"
            )
    return timesteps


# JSON has no tuples: lists are let through, then held as tuples. Their items stay strict.
Timesteps = Annotated[
    tuple[Annotated[float, Field(ge=0, le=LAST_TIMESTEP)], ...],
    FailFast(),
    at_most(MAX_TIMESTEPS),
    Field(strict=False, min_length=1),
    AfterValidator(_descending),
]
BitsPerTimestep = Annotated[
    tuple[Bits, ...], FailFast(), at_most(MAX_TIMESTEPS), Field(strict=False)
]


class MeanBitWidths(StrictModel):
    """Mean bits over all quantized weights, and over all activations and timesteps."""

    weight_bits: MeanBits
    activation_bits: MeanBits


class LayerBits(StrictModel):
    """One layer's bits: one value for the weight, one per timestep for the activations."""

    weight_bits: Bits
    activation_bits: BitsPerTimestep


class BitGrid(StrictModel):
    """The content of ``bit_grid.json``.

    Attributes:
        format_version: version of this file's layout.
        target: the mean bits that were asked for.
        timesteps: the scheduler's timesteps, strictly descending; at least one.
        layers: layer name -> its bits.
    """

    format_version: VersionOne = 1
    target: MeanBitWidths
    timesteps: Timesteps
    layers: Annotated[dict[str, LayerBits], at_most(MAX_LAYERS)]

    @model_validator(mode="after")
    def _one_entry_per_timestep(self) -> Self:
        for name, layer in self.layers.items():
            if len(layer.activation_bits) != len(self.timesteps):
                raise ValueError(
                    f"layer {name} has {len(layer.activation_bits)} activation bits for"
                    f" {len(self.timesteps)} timesteps"
                )
        return self

    def at_step(self, index: int) -> dict[str, int]:
        """Activation bits of every layer at one position of ``timesteps``.

        Raises:
            IndexError: there is no such position (negative ones are refused as well).
        """
        if not 0 <= index < len(self.timesteps):
            raise IndexError(f"step {index} of a grid with {len(self.timesteps)} timesteps")
        return {name: layer.activation_bits[index] for name, layer in self.layers.items()}

    def nearest_step(self, timestep: float) -> int:
        """Position of the calibrated timestep nearest to ``timestep``; the earlier one on a tie."""
        distances = [abs(known - timestep) for known in self.timesteps]
        return distances.index(min(distances))
