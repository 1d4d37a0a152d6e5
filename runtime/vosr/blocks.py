"""One transformer block of VOSR: self-attention, cross attention to the picture's features, SwiGLU.

Tokens of noise and low-resolution latent are one stream, joined by channel before the first block.
One linear layer makes six vectors of the times for all blocks; each block adds a table of its own
(PixArt's AdaLN-single, arXiv 2310.00426). Cross attention is neither modulated nor normed.

Modules and parameters bear the names of the published checkpoints; docs/families.md has the facts
and their sources.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.vosr.config import VosrConfig
from runtime.network.attention import SoftmaxAttention
from runtime.network.projection import ActivationBits, project, project_all

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Rotation:
    """Rotary positions of a grid of tokens, in the network's dtype.

    Attributes:
        cosines, sines: [n, D], the angle of every pair of channels twice.
    """

    cosines: Tensor
    sines: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Turn queries or keys ``x`` [B, heads, n, D]: channels 2 j and 2 j + 1 are a pair."""
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        quarter_turned = torch.stack([-second, first], dim=-1).flatten(-2)
        return x * self.cosines + quarter_turned * self.sines


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, tokens, C] -> [B, heads, tokens, D]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """[B, heads, tokens, D] -> [B, tokens, C]."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Tokens attend to each other; queries and keys are normed by head, then turned by position."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        width, head = config.dim, config.head_dim
        self.heads = config.num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.RMSNorm(head, NORM_EPS), nn.RMSNorm(head, NORM_EPS)
        self.proj = nn.Linear(width, width)
        self.attend = SoftmaxAttention()

    def forward(self, x: Tensor, rotation: Rotation, bits: ActivationBits | None) -> Tensor:
        """Apply to ``x`` [B, n, C]."""
        q, k, v = (_heads(part, self.heads) for part in project(self.qkv, x, bits).chunk(3, dim=-1))
        q, k = rotation.apply(self.q_norm(q)), rotation.apply(self.k_norm(k))
        attended = self.attend(q, k, v, quantized=bits is not None)
        return project(self.proj, _joined(attended), bits)


class CrossAttention(nn.Module):
    """Tokens attend to the picture's features; queries and keys are normed by head."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        width, head = config.dim, config.head_dim
        self.heads = config.num_heads
        self.q_linear, self.k_linear, self.v_linear, self.proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.q_norm, self.k_norm = nn.RMSNorm(head, NORM_EPS), nn.RMSNorm(head, NORM_EPS)
        self.attend = SoftmaxAttention()

    def forward(self, x: Tensor, features: Tensor, bits: ActivationBits | None) -> Tensor:
        """Apply to ``x`` [B, n, C], given ``features`` [B, m, C]."""
        q = _heads(project(self.q_linear, x, bits), self.heads)
        of_features = project_all((self.k_linear, self.v_linear), features, bits)
        k, v = (_heads(part, self.heads) for part in of_features)
        attended = self.attend(self.q_norm(q), self.k_norm(k), v, quantized=bits is not None)
        return project(self.proj, _joined(attended), bits)


class SwiGlu(nn.Module):
    """``w3(silu(a) * b)`` with ``[a ; b] = w12(x)``."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        self.w12 = nn.Linear(config.dim, 2 * config.hidden_features)
        self.w3 = nn.Linear(config.hidden_features, config.dim)

    def forward(self, x: Tensor, bits: ActivationBits | None) -> Tensor:
        """Apply to ``x`` [B, n, C]."""
        gate, values = project(self.w12, x, bits).chunk(2, dim=-1)
        return project(self.w3, F.silu(gate) * values, bits)


class VosrBlock(nn.Module):
    """One block."""

    def __init__(self, config: VosrConfig) -> None:
        super().__init__()
        width = config.dim
        self.scale_shift_table = nn.Parameter(torch.empty(6, width))
        self.norm1, self.norm2 = nn.RMSNorm(width, NORM_EPS), nn.RMSNorm(width, NORM_EPS)
        self.attn = SelfAttention(config)
        self.mlp = SwiGlu(config)
        self.cross_attn = CrossAttention(config)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        features: Tensor,
        rotation: Rotation,
        bits: ActivationBits | None,
    ) -> Tensor:
        """The tokens after the block.

        Args:
            x: tokens [B, n, C].
            modulation: of the times, for all blocks [B, 6, C].
            features: of the picture [B, m, C].
            rotation: positions of the tokens.
            bits: this timestep's activation bits by layer name; None for unquantized.
        """
        vectors = (self.scale_shift_table + modulation).unsqueeze(2).unbind(1)  # six [B, 1, C]
        shift, scale, gate, shift_ff, scale_ff, gate_ff = vectors
        attended = self.attn(torch.addcmul(shift, self.norm1(x), 1 + scale), rotation, bits)
        x = torch.addcmul(x, gate, attended)
        x = x + self.cross_attn(x, features, bits)
        hidden = self.mlp(torch.addcmul(shift_ff, self.norm2(x), 1 + scale_ff), bits)
        return torch.addcmul(x, gate_ff, hidden)
