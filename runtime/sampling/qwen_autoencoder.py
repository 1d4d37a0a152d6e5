"""Qwen-Image's autoencoder in two dimensions, in the place of an ``AutoencoderKL``'s parts.

Tiles, precision and the rest of `runtime.sampling.autoencoder` know diffusers' ``AutoencoderKL``.
So this one is such an object with another encoder and decoder in it. Its latents are normed by
channel, ``(z - mean) / std``; that is folded into the 1x1 convolutions on both sides, so that what
leaves and enters is what the network works on, and the scaling factor is 1.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from artifacts.autoencoder.qwen import QwenAutoencoderConfig, decoder_widths


class ChannelNorm(nn.Module):
    """RMS norm over the channels of every pixel [B, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Norm ``x``, in float32."""
        normed = F.normalize(x.float(), dim=1) * x.shape[1] ** 0.5
        return (normed * self.gamma).to(x.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions, each after norm and SiLU, around which the input goes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(inputs), ChannelNorm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, h, w]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        result: Tensor = self.conv_shortcut(x) + hidden
        return result


class PixelAttention(nn.Module):
    """Every pixel attends to every other, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [B, C, h, w]."""
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]  # [B, 1, h * w, 3 C]
        attended = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))[:, 0]
        result: Tensor = x + self.proj(attended.transpose(1, 2).unflatten(2, x.shape[2:]))
        return result


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([PixelAttention(channels)])
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [B, C, h, w]."""
        result: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return result


class Resample(nn.Module):
    """Half or twice the size: a convolution with steps of two, or one after doubling."""

    def __init__(self, inputs: int, outputs: int, *, smaller: bool) -> None:
        super().__init__()
        self.resample = (
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, outputs, 3, stride=2))
            if smaller
            else nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [B, inputs, h, w]."""
        result: Tensor = self.resample(x)
        return result


class UpLevel(nn.Module):
    """One resolution of the decoder."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResidualBlock(outputs if index else inputs, outputs) for index in range(blocks)
        )
        enlarging = [] if last else [Resample(outputs, outputs // 2, smaller=False)]
        self.upsamplers = nn.ModuleList(enlarging)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x`` [B, inputs, h, w]."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """A picture [B, 3, H, W], -1 ... 1, to mean and log variance of its latent."""

    def __init__(self, config: QwenAutoencoderConfig) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_down_layers(config))
        self.mid_block = Middle(channels[-1])
        self.norm_out = ChannelNorm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.z_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """-> [B, 2 z_dim, H / f, W / f]."""
        x = self.conv_in(x)
        for layer in self.down_blocks:
            x = layer(x)
        moments: Tensor = self.conv_out(F.silu(self.norm_out(self.mid_block(x))))
        return moments


class Decoder(nn.Module):
    """A latent [B, z_dim, h, w] to a picture, -1 ... 1 and a little beyond."""

    def __init__(self, config: QwenAutoencoderConfig) -> None:
        super().__init__()
        widths = decoder_widths(config)
        self.conv_in = nn.Conv2d(config.z_dim, widths[0][0], 3, padding=1)
        self.mid_block = Middle(widths[0][0])
        self.up_blocks = nn.ModuleList(
            UpLevel(inputs, outputs, config.num_res_blocks + 1, last=level == len(widths) - 1)
            for level, (inputs, outputs) in enumerate(widths)
        )
        self.norm_out = ChannelNorm(widths[-1][1])
        self.conv_out = nn.Conv2d(widths[-1][1], 3, 3, padding=1)

    def forward(self, z: Tensor, *_: object) -> Tensor:
        """-> [B, 3, f h, f w]."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        picture: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return picture


def _down_layers(config: QwenAutoencoderConfig) -> Iterator[nn.Module]:
    inputs = config.channels[0]
    for level, outputs in enumerate(config.channels):
        for _ in range(config.num_res_blocks):
            yield ResidualBlock(inputs, outputs)
            inputs = outputs
        if level < len(config.channels) - 1:
            yield Resample(outputs, outputs, smaller=True)


def empty_qwen_autoencoder(config: QwenAutoencoderConfig) -> AutoencoderKL:
    """The autoencoder on the meta device."""
    levels = len(config.dim_mult)
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=config.z_dim,
            norm_num_groups=1,
            scaling_factor=1.0,
        )
        vae.encoder, vae.decoder = Encoder(config), Decoder(config)
    return vae


def fold_norm(state: dict[str, Tensor], config: QwenAutoencoderConfig) -> dict[str, Tensor]:
    """A state dict whose latents are normed: ``(z - mean) / std`` out of it and into it."""
    weight = state["quant_conv.weight"]
    mean, deviation = (weight.new_tensor(x) for x in (config.latents_mean, config.latents_std))
    # The second half are log variances, of which nothing here is read.
    shift = torch.cat([mean, torch.zeros_like(mean)])
    scale = torch.cat([deviation, torch.ones_like(deviation)])
    inward = state["post_quant_conv.weight"]
    return state | {
        "quant_conv.weight": weight / scale[:, None, None, None],
        "quant_conv.bias": (state["quant_conv.bias"] - shift) / scale,
        "post_quant_conv.weight": inward * deviation[None, :, None, None],
        "post_quant_conv.bias": state["post_quant_conv.bias"] + inward[:, :, 0, 0] @ mean,
    }
