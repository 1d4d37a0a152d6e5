"""Qwen-Image's autoencoder in two dimensions: its configuration, and its tensors' names and shapes.

Qwen-Image's own is one of videos (`AutoencoderKLQwenImage` of diffusers). VOSR is published with
what a single picture needs of it: of every kernel the last time slice, as a convolution in two
dimensions. Names are those of that file.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, model_validator

from schemas.bounds import at_most
from schemas.strict import StrictModel

QWEN_CLASS_NAME = "AutoencoderKLQwenImage2D"
MAX_LEVELS = 8
MAX_CHANNELS = 1024
LARGEST_LATENT = 1e3
"""Bound of means and deviations; published ones have -1.0 to 1.6, and 1.1 to 3.3."""

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]
# JSON has no tuples: let a list through, then hold it as a tuple.
Levels = Annotated[
    tuple[Annotated[int, Field(ge=1, le=64)], ...],
    FailFast(),
    at_most(MAX_LEVELS),
    Field(strict=False, min_length=1),
]
Means = Annotated[
    tuple[Annotated[float, Field(ge=-LARGEST_LATENT, le=LARGEST_LATENT)], ...],
    FailFast(),
    at_most(MAX_CHANNELS),
    Field(strict=False),
]
Deviations = Annotated[
    tuple[Annotated[float, Field(ge=1 / LARGEST_LATENT, le=LARGEST_LATENT)], ...],
    FailFast(),
    at_most(MAX_CHANNELS),
    Field(strict=False),
]
Nothing = Annotated[tuple[Any, ...], Field(strict=False, max_length=0)]


class QwenAutoencoderConfig(StrictModel):
    """Shapes and scales of one such autoencoder, in the words of its ``config.json``.

    Attributes:
        base_dim: channels at the image's resolution.
        z_dim: channels of the latent.
        dim_mult: channels at every resolution, over ``base_dim``, from the image's on.
        num_res_blocks: residual blocks at every resolution of the encoder; the decoder has one
            more.
        attn_scales: resolutions with attention; none but the lowest has any, which is not said.
        latents_mean, latents_std: the network's latent is ``(z - mean) / std``, by channel.
        temperal_downsample, dropout, non_linearity: of the video's autoencoder and its training;
            not used here.
    """

    base_dim: Annotated[int, Field(ge=1, le=4096)]
    z_dim: Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    dim_mult: Levels
    num_res_blocks: Annotated[int, Field(ge=1, le=16)]
    attn_scales: Nothing = ()
    latents_mean: Means
    latents_std: Deviations
    temperal_downsample: Annotated[
        tuple[bool, ...], FailFast(), at_most(MAX_LEVELS), Field(strict=False)
    ] = ()
    dropout: float = 0.0
    non_linearity: Literal["silu"] = "silu"

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.z_dim

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at every resolution, from the image's on."""
        return tuple(self.base_dim * factor for factor in self.dim_mult)

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel, along one side."""
        return int(2 ** (len(self.dim_mult) - 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {self.z_dim}")
        if any(width % 2 for width in self.channels[1:]):
            raise ValueError("every resolution but the image's has twice some number of channels")
        return self


def qwen_tensor_shapes(config: QwenAutoencoderConfig) -> dict[str, Shape]:
    """Every tensor of the state dict: name -> shape."""
    latent = config.z_dim
    shapes = {f"encoder.{name}": shape for name, shape in _encoder(config)}
    shapes |= dict(_convolution("quant_conv", 2 * latent, 2 * latent, side=1))
    shapes |= dict(_convolution("post_quant_conv", latent, latent, side=1))
    return shapes | {f"decoder.{name}": shape for name, shape in _decoder(config)}


def decoder_widths(config: QwenAutoencoderConfig) -> list[tuple[int, int]]:
    """Channels that every resolution of the decoder is given, and has; from the lowest on.

    Between two resolutions the convolution that enlarges halves the channels.
    """
    widths = config.channels[::-1]
    return [(widths[0], widths[0])] + [(before // 2, own) for before, own in pairwise(widths)]


def _encoder(config: QwenAutoencoderConfig) -> Named:
    channels = config.channels
    yield from _convolution("conv_in", channels[0], 3)
    inputs, index = channels[0], 0
    for level, outputs in enumerate(channels):
        for _ in range(config.num_res_blocks):
            yield from _residual(f"down_blocks.{index}", inputs, outputs)
            inputs, index = outputs, index + 1
        if level < len(channels) - 1:
            yield from _convolution(f"down_blocks.{index}.resample.1", outputs, outputs)
            index += 1
    yield from _middle(channels[-1])
    yield "norm_out.gamma", (channels[-1], 1, 1)
    yield from _convolution("conv_out", 2 * config.z_dim, channels[-1])


def _decoder(config: QwenAutoencoderConfig) -> Named:
    widths = decoder_widths(config)
    yield from _convolution("conv_in", widths[0][0], config.z_dim)
    yield from _middle(widths[0][0])
    for level, (inputs, outputs) in enumerate(widths):
        block = f"up_blocks.{level}"
        for index in range(config.num_res_blocks + 1):
            yield from _residual(f"{block}.resnets.{index}", outputs if index else inputs, outputs)
        if level < len(widths) - 1:
            yield from _convolution(f"{block}.upsamplers.0.resample.1", outputs // 2, outputs)
    yield "norm_out.gamma", (widths[-1][1], 1, 1)
    yield from _convolution("conv_out", 3, widths[-1][1])


def _middle(channels: int) -> Named:
    attention = "mid_block.attentions.0"
    yield f"{attention}.norm.gamma", (channels, 1, 1)
    yield from _convolution(f"{attention}.to_qkv", 3 * channels, channels, side=1)
    yield from _convolution(f"{attention}.proj", channels, channels, side=1)
    for index in range(2):
        yield from _residual(f"mid_block.resnets.{index}", channels, channels)


def _residual(name: str, inputs: int, outputs: int) -> Named:
    yield f"{name}.norm1.gamma", (inputs, 1, 1)
    yield from _convolution(f"{name}.conv1", outputs, inputs)
    yield f"{name}.norm2.gamma", (outputs, 1, 1)
    yield from _convolution(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{name}.conv_shortcut", outputs, inputs, side=1)


def _convolution(name: str, outputs: int, inputs: int, *, side: int = 3) -> Named:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)
