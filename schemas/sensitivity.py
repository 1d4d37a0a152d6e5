"""The content of a sensitivity file: how much noise in a layer changes the final latent."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.bit_grid import MAX_LAYERS, MAX_TIMESTEPS, Timesteps, VersionOne
from schemas.bounds import at_most
from schemas.calibration import CalibrationImage
from schemas.manifest import MAX_FILES, CalibrationRecord, Source, VariantName
from schemas.strict import StrictModel

MAX_SENSITIVITY_BYTES = 128 * 2**20
"""Largest file read; the published network has some 40,000 numbers at 40 steps."""

Sensitivity = Annotated[float, Field(ge=0)]
PerStep = Annotated[tuple[Sensitivity, ...], at_most(MAX_TIMESTEPS), Field(strict=False)]


class LayerSensitivity(StrictModel):
    """One layer's sensitivities: mean squared change of the final latent, per latent element.

    Attributes:
        weight: for white noise in the weight with a squared Frobenius norm of 1; the same noise at
            every token and step.
        output: for noise of unit variance in every element of the layer's output, per step.
        activation: for noise in the layer's input with the mean square of every token, behind a
            weight of white rows with a squared Frobenius norm of 1, per step.
    """

    weight: Sensitivity
    output: PerStep
    activation: PerStep


class SensitivityMap(StrictModel):
    """Sensitivities of all layers over a sampling trajectory.

    Attributes:
        format, format_version: name and version of this file's layout.
        source: the checkpoint.
        variant: which published network it is.
        sampling: how pictures, crops and trajectories were drawn.
        cotangents: random directions per picture.
        images: in the order they were used; empty for generated pictures.
        timesteps: the scheduler's, strictly descending.
        layers: layer name -> its sensitivities.
    """

    format: Literal["qsensitivity"] = "qsensitivity"
    format_version: VersionOne = 1
    source: Source
    variant: VariantName
    sampling: CalibrationRecord
    cotangents: Annotated[int, Field(ge=1, le=MAX_FILES)]
    images: Annotated[tuple[CalibrationImage, ...], at_most(MAX_FILES), Field(strict=False)] = ()
    timesteps: Timesteps
    layers: Annotated[dict[str, LayerSensitivity], at_most(MAX_LAYERS)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, layer in self.layers.items():
            for what, values in (("output", layer.output), ("activation", layer.activation)):
                if len(values) != len(self.timesteps):
                    raise ValueError(
                        f"layer {name} has {len(values)} {what} sensitivities for"
                        f" {len(self.timesteps)} timesteps"
                    )
        if self.images and self.sampling.images != len(self.images):
            raise ValueError(f"{len(self.images)} images are listed, not {self.sampling.images}")
        return self
