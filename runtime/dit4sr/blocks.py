"""One transformer block of DiT4SR: modulation, joint attention with a control stream, feed-forward.

Three token streams pass through a block: ``image`` (the noisy latent) and ``control`` (the
low-resolution latent), n tokens each and held as one tensor [image ; control], and ``text``.
What cannot reach the network's output is not computed: control key projections in q and f, and in
the last block the text queries and the control half of the feed-forward's second layer. (The last
control stream itself matters: it reaches the image through the feed-forward's convolution.) The
parameters of unread layers exist all the same, because published checkpoints carry them.

Modules and parameters bear the names of the published checkpoints. AdaLN and feed-forward are
written out here rather than taken from diffusers, whose own versions hide their linear layer
behind a fixed signature: the bits of the timestep could not be handed to it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from runtime.network.attention import SoftmaxAttention
from runtime.network.modulation import Conditioning, project_modulations
from runtime.network.projection import ActivationBits, modulate, project, project_all, project_gelu

NORM_EPS = 1e-6
CONTROL_CONV_GAIN = 1.2
"""Weight of the control stream's convolution inside the feed-forward (a constant of DiT4SR)."""


class Modulation(nn.Module):
    """AdaLN: a linear layer from the conditioning vector to ``parts`` vectors of width C."""

    def __init__(self, hidden_size: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(hidden_size, parts * hidden_size)


def modulations(
    norms: Sequence[Modulation],
    conditioning: Conditioning,
    bits: ActivationBits | None,
    dtype: torch.dtype,
) -> list[tuple[Tensor, ...]]:
    """The ``parts`` vectors [B, C] of every norm of a block at once, in ``dtype``."""
    layers: list[nn.Module] = [norm.linear for norm in norms]
    vectors = project_modulations(layers, conditioning, bits, dtype)
    return [x.chunk(norm.parts, dim=-1) for norm, x in zip(norms, vectors, strict=True)]


class FeedForward(nn.Module):
    """``proj -> GELU(tanh) -> net.2``, four times as wide inside.

    With ``control=True`` the tokens are [image ; control]: between the two layers the control half,
    laid out on its grid, goes through a depthwise 3x3 convolution into the image half.
    """

    def __init__(self, hidden_size: int, *, control: bool) -> None:
        super().__init__()
        inner = 4 * hidden_size
        self.net = nn.ModuleDict(
            {
                "0": nn.ModuleDict({"proj": nn.Linear(hidden_size, inner)}),
                "2": nn.Linear(inner, hidden_size),
            }
        )
        self.control_conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner) if control else None

    def forward(
        self,
        x: Tensor,
        bits: ActivationBits | None,
        *,
        grid: tuple[int, int] | None = None,
        image_only: bool = False,
    ) -> Tensor:
        """Apply to ``x`` [B, tokens, C].

        Args:
            x: tokens of one stream, or of [image ; control].
            bits: this timestep's activation bits by layer name; None for unquantized.
            grid: token rows and columns of one stream; needed by the layer with a control stream.
            image_only: return only the image half [B, n, C], where nothing reads the other.
        """
        inner_layer: nn.Module = self.net["0"].get_submodule("proj")
        h = project_gelu(inner_layer, x, bits)
        if self.control_conv is not None:
            if grid is None:
                raise ValueError("a feed-forward with a control stream needs the token grid")
            image, control = h.chunk(2, dim=1)
            on_grid = control.transpose(1, 2).unflatten(2, grid)  # [B, 4C, rows, columns]
            mixed = self._convolve(on_grid).flatten(2).transpose(1, 2)
            if torch.is_grad_enabled():
                image = torch.add(image, mixed, alpha=CONTROL_CONV_GAIN)
                h = image if image_only else torch.cat([image, control], dim=1)
            else:  # the same in place: this is the largest tensor of a block
                image.add_(mixed, alpha=CONTROL_CONV_GAIN)
                h = image if image_only else h
        return project(self.net["2"], h, bits)

    def _convolve(self, on_grid: Tensor) -> Tensor:
        """The depthwise convolution of ``on_grid`` [B, 4C, rows, columns].

        Tokens lie in memory channels last. torch only keeps to that order where the weight has it
        too, and otherwise spends many times the convolution's time on reordering its input.
        """
        conv = self.control_conv
        assert conv is not None
        weight = conv.weight.to(memory_format=torch.channels_last)
        return F.conv2d(on_grid, weight, conv.bias, padding=1, groups=conv.groups)


class AttentionOutput(NamedTuple):
    """What one attention adds to [image ; control] and to the text, None where nothing reads it."""

    latent: Tensor
    text: Tensor | None


class ControlAttention(nn.Module):
    """Softmax attention over [image, control, text] with per-head RMS norms.

    Control queries and values come from a second projection stacked on the image's own, and so do
    control keys in the variant r1. In q and f the published code overwrites the control keys with
    the image's, so ``to_k_control`` never matters there.
    """

    def __init__(self, config: TransformerConfig, variant: str, *, text_output: bool) -> None:
        super().__init__()
        width, head = config.hidden_size, config.attention_head_dim
        self.heads = config.num_attention_heads
        self.variant = variant
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_q_control, self.to_k_control, self.to_v_control, self.to_out_control = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (
            nn.Linear(width, width) for _ in range(3)
        )
        self.to_add_out = nn.Linear(width, width) if text_output else None
        self.norm_q, self.norm_k, self.norm_added_q, self.norm_added_k = (
            nn.RMSNorm(head, NORM_EPS) for _ in range(4)
        )
        self.attend = SoftmaxAttention()

    def _heads(self, x: Tensor) -> Tensor:
        """[B, tokens, C] -> [B, heads, tokens, head size]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, latent: Tensor, text: Tensor | None, bits: ActivationBits | None
    ) -> AttentionOutput:
        """Attend over all streams.

        Args:
            latent: modulated tokens [B, 2n, C] = [image ; control].
            text: modulated tokens of the prompt [B, m, C], or None for attention without text.
            bits: this timestep's activation bits by layer name; None for unquantized.
        """
        control = latent.chunk(2, dim=1)[1]
        n = control.shape[1]

        reads_control_keys = self.variant == "r1"
        q, k, v = project_all(
            (self.to_q, self.to_k, self.to_v),
            latent,
            bits,
            first=(None, None if reads_control_keys else n, None),
        )
        q_control = project(self.to_q_control, q[:, n:], bits)
        queries = [self.norm_q(self._heads(x)) for x in (q[:, :n], q_control)]

        keys = [self.norm_k(self._heads(k[:, :n]))]
        if reads_control_keys:
            keys.append(self.norm_k(self._heads(project(self.to_k_control, k[:, n:], bits))))
        else:
            # Normalised a second time, as the published network does.
            keys.append(self.norm_k(keys[0]))

        v_control = project(self.to_v_control, v[:, n:], bits)
        values = [self._heads(v[:, :n]), self._heads(v_control)]

        if text is not None:
            layers: list[nn.Module] = [self.add_k_proj, self.add_v_proj]
            if self.to_add_out is not None:
                layers.append(self.add_q_proj)
            k_text, v_text, *q_text = project_all(layers, text, bits)
            keys.append(self.norm_added_k(self._heads(k_text)))
            values.append(self._heads(v_text))
            queries += [self.norm_added_q(self._heads(x)) for x in q_text]

        attended = self.attend(
            torch.cat(queries, dim=2),
            torch.cat(keys, dim=2),
            torch.cat(values, dim=2),
            quantized=bits is not None,
        )
        attended = attended.transpose(1, 2).flatten(2)  # [B, queries, C]

        image_out = project(self.to_out[0], attended[:, :n], bits)
        control_out = project(self.to_out_control, attended[:, n : 2 * n] + control, bits)
        text_out = None
        if text is not None and self.to_add_out is not None:
            text_out = project(self.to_add_out, attended[:, 2 * n :], bits)
        return AttentionOutput(torch.cat([image_out, control_out], dim=1), text_out)


class ControlBlock(nn.Module):
    """One MM-DiT block with a control stream; the last block of a network drops its text."""

    def __init__(self, config: TransformerConfig, variant: str, *, dual: bool, last: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.last = last
        self.norm1 = Modulation(width, 9 if dual else 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = ControlAttention(config, variant, text_output=not last)
        self.attn2 = ControlAttention(config, variant, text_output=True) if dual else None
        self.ff = FeedForward(width, control=True)
        self.ff_context = None if last else FeedForward(width, control=False)

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)

    def forward(
        self,
        latent: Tensor,
        text: Tensor,
        conditioning: Conditioning,
        grid: tuple[int, int],
        bits: ActivationBits | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the streams ``latent`` [B, 2n, C] and ``text`` [B, m, C] after the block.

        The last block returns ``text`` unchanged, and only the image half of ``latent`` matters.
        """
        norms = (self.norm1, self.norm1_context)
        own, context = modulations(norms, conditioning, bits, latent.dtype)
        shift, scale, gate, shift_ff, scale_ff, gate_ff, *second = own
        normed = self._norm(latent)

        if self.last:
            scale_text, shift_text = context  # AdaLayerNormContinuous has the scale first
        else:
            shift_text, scale_text, gate_text, shift_text_ff, scale_text_ff, gate_text_ff = context
        attended = self.attn(
            modulate(normed, shift, scale),
            modulate(self._norm(text), shift_text, scale_text),
            bits,
        )
        latent = torch.addcmul(latent, gate[:, None], attended.latent)
        if self.attn2 is not None:
            shift2, scale2, gate2 = second
            attended2 = self.attn2(modulate(normed, shift2, scale2), None, bits)
            latent = torch.addcmul(latent, gate2[:, None], attended2.latent)

        hidden = self.ff(
            modulate(self._norm(latent), shift_ff, scale_ff),
            bits,
            grid=grid,
            image_only=self.last,
        )
        latent = torch.addcmul(latent[:, : hidden.shape[1]], gate_ff[:, None], hidden)

        if self.ff_context is not None:
            text = torch.addcmul(text, gate_text[:, None], attended.text)
            hidden = self.ff_context(modulate(self._norm(text), shift_text_ff, scale_text_ff), bits)
            text = torch.addcmul(text, gate_text_ff[:, None], hidden)
        return latent, text
