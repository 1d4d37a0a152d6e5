"""The content of a calibration file: what a network's layers were fed, per timestep."""

from typing import Annotated, Literal, Self

from pydantic import FailFast, Field, model_validator

from schemas.bit_grid import MAX_LAYERS, Timesteps, VersionOne
from schemas.bounds import at_most
from schemas.manifest import (
    MAX_FILES,
    CalibrationRecord,
    RecipeRecord,
    Sha256,
    Source,
    SourceName,
    VariantName,
)
from schemas.strict import StrictModel

MAX_CALIBRATION_VALUES = 4_000_000
"""Most numbers read: layers of 2.7 billion parameters have 1.1 million inputs together, and two
numbers belong to each."""
MAX_CALIBRATION_BYTES = 16 * MAX_CALIBRATION_VALUES
"""Largest file read: a number takes some 12 bytes."""

MeanSquare = Annotated[float, Field(ge=0)]
PerStep = Annotated[tuple[MeanSquare, ...], FailFast(), at_most(MAX_FILES), Field(strict=False)]
PerChannel = Annotated[tuple[MeanSquare, ...], FailFast(), at_most(2**24), Field(strict=False)]


class CalibrationImage(StrictModel):
    """One image of the calibration set, and the crop that was taken from it.

    Attributes:
        name: file name.
        sha256: of the file.
        left, top, width, height: of the crop, in px.
    """

    name: SourceName
    sha256: Sha256
    left: Annotated[int, Field(ge=0)]
    top: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class ChannelStatistics(StrictModel):
    """What smoothing needs to know of one layer's input: one value per channel, over all steps.

    Attributes:
        maximum: largest magnitude.
        mean_square: mean over tokens of the square.
    """

    maximum: PerChannel
    mean_square: PerChannel

    @model_validator(mode="after")
    def _same_channels(self) -> Self:
        if len(self.maximum) != len(self.mean_square):
            raise ValueError("maximum and mean_square differ in their number of channels")
        return self


class Calibration(StrictModel):
    """Statistics of every layer's input over a sampling trajectory.

    Attributes:
        format, format_version: name and version of this file's layout.
        source: the checkpoint.
        variant: which published network it is.
        network: whether the weights were ``quantized`` (activations never are).
        recipe: how they were quantized; what a ``full-precision`` network was measured for.
        sampling: how images, crops and trajectories were drawn.
        images: in the order they were used.
        timesteps: the scheduler's, strictly descending.
        mean_squares: layer name -> mean square of its input at every timestep (Eq. 17).
        channels: layer name -> channel statistics; empty unless the recipe smooths.
    """

    format: Literal["qcalibration"] = "qcalibration"
    format_version: VersionOne = 1
    source: Source
    variant: VariantName
    network: Literal["quantized", "full-precision"]
    recipe: RecipeRecord
    sampling: CalibrationRecord
    images: Annotated[
        tuple[CalibrationImage, ...],
        FailFast(),
        at_most(MAX_FILES),
        Field(strict=False, min_length=1),
    ]
    timesteps: Timesteps
    mean_squares: Annotated[dict[str, PerStep], at_most(MAX_LAYERS)]
    channels: Annotated[dict[str, ChannelStatistics], at_most(MAX_LAYERS)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, values in self.mean_squares.items():
            if len(values) != len(self.timesteps):
                raise ValueError(
                    f"layer {name} has {len(values)} mean squares for {len(self.timesteps)}"
                    " timesteps"
                )
        if self.sampling.steps != len(self.timesteps):
            raise ValueError(
                f"{len(self.timesteps)} timesteps for {self.sampling.steps} sampling steps"
            )
        if self.sampling.images != len(self.images):
            raise ValueError(f"{len(self.images)} images are listed, not {self.sampling.images}")
        return self
