"""The configuration of an ``AutoencoderKL``, in the words of a diffusers ``config.json``.

Every value that diffusers would take on trust is bounded here, because it decides how much is
allocated, or divides: group counts, depths, scaling factors.
"""

from typing import Annotated, Literal, Self

from pydantic import FailFast, Field, model_validator

from schemas.bounds import at_most
from schemas.strict import StrictModel

CLASS_NAME = "AutoencoderKL"
MAX_BLOCKS = 8
"""Resolutions of the encoder; seven halvings make a latent pixel of 128 px."""
LARGEST_SCALING = 1e3
"""Bound of scaling and shift: published autoencoders have 0.13 to 1.6, and -0.04 to 0.16."""

Channels = Annotated[int, Field(ge=1, le=65536)]
# JSON has no tuples: let a list through, then hold it as a tuple.
PerBlock = Field(strict=False, min_length=1)
Rgb = Annotated[int, Field(ge=3, le=3)]


class AutoencoderConfig(StrictModel):
    """Shapes and scales of one autoencoder. The defaults are diffusers', for files that omit them.

    Attributes:
        in_channels, out_channels: of the image.
        down_block_types, up_block_types: one kind of block for every resolution.
        block_out_channels: channels at every resolution, from the image's on.
        layers_per_block: residual blocks at every resolution of the encoder; the decoder has one
            more.
        act_fn: activation.
        latent_channels: of the latent.
        norm_num_groups: groups of every group norm; divides all channels.
        sample_size: side of the training images, in px; not used here.
        scaling_factor, shift_factor: the network's latent is ``(z - shift) * scaling``.
        latents_mean, latents_std: another way to say so, which the networks here do not know.
        force_upcast: not used here: convolutions may run in bfloat16, which needs no upcast.
        use_quant_conv, use_post_quant_conv: 1x1 convolutions around the latent.
        mid_block_add_attention: attention at the lowest resolution.
    """

    in_channels: Rgb = 3
    out_channels: Rgb = 3
    down_block_types: Annotated[
        tuple[Literal["DownEncoderBlock2D"], ...], FailFast(), at_most(MAX_BLOCKS), PerBlock
    ] = ("DownEncoderBlock2D",)
    up_block_types: Annotated[
        tuple[Literal["UpDecoderBlock2D"], ...], FailFast(), at_most(MAX_BLOCKS), PerBlock
    ] = ("UpDecoderBlock2D",)
    block_out_channels: Annotated[
        tuple[Channels, ...], FailFast(), at_most(MAX_BLOCKS), PerBlock
    ] = (64,)
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 1
    act_fn: Literal["silu"] = "silu"
    latent_channels: Annotated[int, Field(ge=1, le=1024)] = 4
    norm_num_groups: Channels = 32
    sample_size: Channels = 32
    scaling_factor: Annotated[float, Field(ge=1 / LARGEST_SCALING, le=LARGEST_SCALING)] = 0.18215
    shift_factor: Annotated[float, Field(ge=-LARGEST_SCALING, le=LARGEST_SCALING)] | None = None
    latents_mean: None = None
    latents_std: None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        counts = {
            "block_out_channels": len(self.block_out_channels),
            "down_block_types": len(self.down_block_types),
            "up_block_types": len(self.up_block_types),
        }
        if len(set(counts.values())) != 1:
            listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(f"blocks do not match: {listed}")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels {channels} is not a multiple of norm_num_groups"
                    f" {self.norm_num_groups}"
                )
        return self
