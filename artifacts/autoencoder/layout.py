"""Names and shapes of every tensor of an ``AutoencoderKL``, from its configuration alone.

Reading one needs them before anything is allocated. A test holds them equal to diffusers' own.
"""

from collections.abc import Iterator

from artifacts.autoencoder.config import AutoencoderConfig

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def tensor_shapes(config: AutoencoderConfig) -> dict[str, Shape]:
    """Every tensor of the state dict: name -> shape."""
    latent = config.latent_channels
    shapes = {f"encoder.{name}": shape for name, shape in _encoder(config)}
    shapes |= {f"decoder.{name}": shape for name, shape in _decoder(config)}
    if config.use_quant_conv:
        shapes |= dict(_convolution("quant_conv", 2 * latent, 2 * latent, side=1))
    if config.use_post_quant_conv:
        shapes |= dict(_convolution("post_quant_conv", latent, latent, side=1))
    return shapes


def _encoder(config: AutoencoderConfig) -> Named:
    channels = config.block_out_channels
    lowest = channels[-1]
    yield from _convolution("conv_in", channels[0], config.in_channels)
    inputs = channels[0]
    for index, outputs in enumerate(channels):
        block = f"down_blocks.{index}"
        yield from _residual_blocks(block, config.layers_per_block, inputs, outputs)
        if index < len(channels) - 1:
            yield from _convolution(f"{block}.downsamplers.0.conv", outputs, outputs)
        inputs = outputs
    yield from _middle(lowest, attention=config.mid_block_add_attention)
    yield from _norm("conv_norm_out", lowest)
    # Mean and log variance of the latent's distribution.
    yield from _convolution("conv_out", 2 * config.latent_channels, lowest)


def _decoder(config: AutoencoderConfig) -> Named:
    channels = config.block_out_channels[::-1]
    yield from _convolution("conv_in", channels[0], config.latent_channels)
    yield from _middle(channels[0], attention=config.mid_block_add_attention)
    inputs = channels[0]
    for index, outputs in enumerate(channels):
        block = f"up_blocks.{index}"
        yield from _residual_blocks(block, config.layers_per_block + 1, inputs, outputs)
        if index < len(channels) - 1:
            yield from _convolution(f"{block}.upsamplers.0.conv", outputs, outputs)
        inputs = outputs
    yield from _norm("conv_norm_out", channels[-1])
    yield from _convolution("conv_out", config.out_channels, channels[-1])


def _middle(channels: int, *, attention: bool) -> Named:
    yield from _residual_blocks("mid_block", 2, channels, channels)
    if attention:
        name = "mid_block.attentions.0"
        yield from _norm(f"{name}.group_norm", channels)
        for linear in ("to_q", "to_k", "to_v", "to_out.0"):
            yield f"{name}.{linear}.weight", (channels, channels)
            yield f"{name}.{linear}.bias", (channels,)


def _residual_blocks(block: str, count: int, inputs: int, outputs: int) -> Named:
    """``count`` blocks one after the other; the first changes the number of channels."""
    for index in range(count):
        name = f"{block}.resnets.{index}"
        yield from _norm(f"{name}.norm1", inputs)
        yield from _convolution(f"{name}.conv1", outputs, inputs)
        yield from _norm(f"{name}.norm2", outputs)
        yield from _convolution(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            yield from _convolution(f"{name}.conv_shortcut", outputs, inputs, side=1)
        inputs = outputs


def _convolution(name: str, outputs: int, inputs: int, *, side: int = 3) -> Named:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Named:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)
