"""Where the autoencoder's training starts: as a linear transform code, with norms that do no harm.

Two things make an untrained ``AutoencoderKL`` of this size learn slowly. Group norm takes away a
crop's brightness and contrast, which then have to be told by detours; and nothing in it starts as a
usable code. Both are mended by the initial weights alone:

- **Anchors.** In every normed tensor the last two channels hold the constants +K and -K, far larger
  than the data. They set the norm's mean and variance, so that it is nearly a fixed scale, whose
  inverse stands in its weight. It also hardly depends on the crop's size, so large pictures are
  decoded as the small training crops were.
- **Karhunen-Loève transform** of 4x4 blocks (the principal components of the training crops): the
  encoder computes the 16 strongest components, in two halvings; the decoder paints every block in
  its mean colour. Residual branches start closed. As silu(a) - silu(-a) = a, a pair of channels
  with opposite signs passes through the last activation unchanged.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

ANCHOR = 10.0
"""K. Images span -1 ... 1."""
WHITENING = 0.5
"""Components are divided by this power of their standard deviation: 0 keeps their energy, 1 makes
all equally large. Diffusion wants them alike, while a pixel's error is dominated by the large."""


@dataclass(frozen=True)
class BlockTransform:
    """A two-stage linear transform of 4x4 blocks of pixels.

    Attributes:
        halving: [M, 3, 2, 2], orthonormal rows: 2x2 pixels -> M components.
        coding: [latents, M, 2, 2], orthonormal rows: 2x2 of those -> latent components.
        gains: [latents]: factor on every component.
    """

    halving: Tensor
    coding: Tensor
    gains: Tensor

    def mean_colour(self) -> Tensor:
        """Matrix [3, latents] from a latent pixel to the mean colour of its block."""
        of_quarter = self.halving.mean(dim=(2, 3))  # [M, 3]
        of_block = torch.einsum("lmyx,mc->lc", self.coding, of_quarter) / 4
        return (of_block / self.gains[:, None]).T


@torch.no_grad()
def block_transform(images: Tensor, *, kept: int, latents: int) -> BlockTransform:
    """The Karhunen-Loève transform of ``images`` [B, 3, H, W].

    It goes through ``kept`` components at half size to ``latents`` at a quarter.
    """
    halving, _ = _strongest(images, kept)
    coding, deviations = _strongest(F.conv2d(images, halving, stride=2), latents)
    return BlockTransform(halving, coding, deviations**-WHITENING)


def _strongest(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Strongest components of 2x2 blocks: filters [count, C, 2, 2] and standard deviations."""
    blocks = F.unfold(images, 2, stride=2).transpose(1, 2).flatten(0, 1)  # [n, 4 C]
    values, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
    strongest = vectors.flip(1)[:, :count].T
    return strongest.unflatten(1, (-1, 2, 2)).contiguous(), values.flip(0)[:count].sqrt()


@torch.no_grad()
def start_as_transform_code(vae: AutoencoderKL, transform: BlockTransform) -> None:
    """Set the weights of an untrained ``vae`` with one group per norm and factor 4."""
    for name, module in vae.named_modules():
        if isinstance(module, nn.GroupNorm):
            # The anchors' variance, and that of data of deviation 1.
            module.weight.fill_((2 * ANCHOR**2 / module.num_channels + 1) ** 0.5)
        elif isinstance(module, nn.Conv2d):
            _start_convolution(name, module)
    latents, width = len(transform.gains), vae.encoder.conv_out.in_channels

    encoder = vae.encoder
    _set(encoder.conv_in, torch.eye(3)[:, :, None, None])
    encoder.conv_in.weight[3:-2] *= 0.1
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks[:2])
    _set(first, transform.halving)
    _set(encoder.down_blocks[1].resnets[0].conv_shortcut, torch.eye(len(transform.halving)))
    _set(second, transform.coding)
    pairs = torch.cat([torch.eye(latents), -torch.eye(latents)])
    _set(encoder.down_blocks[2].resnets[0].conv_shortcut, pairs)
    code = torch.zeros(encoder.conv_out.out_channels, width)
    code[:latents, :latents] = torch.diag(transform.gains)
    code[:latents, latents : 2 * latents] = -torch.diag(transform.gains)
    encoder.conv_out.weight.zero_()
    encoder.conv_out.weight[:, :, 1, 1] = code

    decoder = vae.decoder
    _set(decoder.conv_in, torch.eye(latents)[:, :, None, None])
    for block in decoder.up_blocks[:2]:
        _set(block.upsamplers[0].conv, torch.eye(block.upsamplers[0].conv.out_channels - 2))
    narrowing = decoder.up_blocks[1].resnets[0].conv_shortcut
    _set(narrowing, torch.eye(narrowing.out_channels - 2))
    colour = transform.mean_colour()
    _set(decoder.up_blocks[2].resnets[0].conv_shortcut, torch.cat([colour, -colour]))
    decoder.conv_out.weight.mul_(0.1)
    decoder.conv_out.weight[:, :6] = 0
    decoder.conv_out.weight[:, :6, 1, 1] = torch.cat([torch.eye(3), -torch.eye(3)], dim=1)


def _start_convolution(name: str, module: nn.Conv2d) -> None:
    """Random weights; anchors made and not read; residual branches closed."""
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    if name.endswith("conv2"):
        nn.init.zeros_(module.weight)
        return
    nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    if not name.endswith("conv_in"):
        module.weight[:, -2:] = 0
    if not name.endswith("conv_out"):
        module.weight[-2:] = 0
        module.bias[-2:] = torch.tensor([ANCHOR, -ANCHOR])


def _set(module: nn.Conv2d, matrix: Tensor) -> None:
    """Overwrite the first rows of a kernel by ``matrix`` [m, n] or [m, n, k, k].

    A smaller kernel stands where a stride of 2 starts (2x2), or in the centre (1x1).
    """
    kernel = matrix if matrix.ndim == 4 else matrix[:, :, None, None]
    rows, columns, side, _ = kernel.shape
    module.weight[:rows] = 0
    at = module.kernel_size[0] // 2 if side == 1 else 0
    module.weight[:rows, :columns, at : at + side, at : at + side] = kernel


def keep_anchors(vae: AutoencoderKL) -> None:
    """Keep gradients from the weights that make or read anchors.

    Anchors are large and many weights read them, so every step would shift the brightness.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        assert module.bias is not None
        trained, biased = torch.ones_like(module.weight), torch.ones_like(module.bias)
        if not name.endswith("conv_in"):
            trained[:, -2:] = 0
        if not name.endswith("conv_out"):
            trained[-2:] = 0
            biased[-2:] = 0
        if module.weight.requires_grad:
            module.weight.register_hook(trained.mul)
            module.bias.register_hook(biased.mul)
