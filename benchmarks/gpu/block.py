"""A network of DiT4SR's width in plain torch, as `runtime.dit4sr.blocks` without its dependencies.

Two blocks of random weights, one with two attentions and one with one, stand for all: a step runs
the first 13 times and the second 11 times. A block's weights are several times larger than the
cache, so nothing is gained by using them again.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.network.projection import ActivationBits, modulate, project, project_all

HIDDEN, HEADS = 1536, 24
DUAL_BLOCKS, SINGLE_BLOCKS = 13, 11
NORM_EPS = 1e-6
CONTROL_CONV_GAIN = 1.2

MakeLinear = Callable[[str, int, int], nn.Module]
"""From name, out_features and in_features."""


class Attention(nn.Module):
    """Image, control and, unless it is a second attention, text."""

    def __init__(self, name: str, hidden: int, heads: int, make: MakeLinear, *, text: bool) -> None:
        super().__init__()
        self.heads = heads
        parts = ["to_q", "to_k", "to_v", "to_out", "to_q_control", "to_v_control", "to_out_control"]
        if text:
            parts += ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
        for part in parts:
            setattr(self, part, make(f"{name}.{part}", hidden, hidden))
        norms = ("q", "k", "added_q", "added_k")
        self.norms = nn.ParameterDict({key: torch.ones(hidden // heads) for key in norms})

    def _norm(self, which: str, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.norms[which], NORM_EPS)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, latent: Tensor, text: Tensor | None, bits: ActivationBits | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over ``latent`` [B, 2n, C] and ``text`` [B, m, C]."""
        control = latent.chunk(2, dim=1)[1]
        n = control.shape[1]
        q, k, v = project_all(
            (self.to_q, self.to_k, self.to_v), latent, bits, first=(None, n, None)
        )
        q_control = project(self.to_q_control, q[:, n:], bits)
        v_control = project(self.to_v_control, v[:, n:], bits)
        queries = [self._norm("q", self._heads(x)) for x in (q[:, :n], q_control)]
        keys = [self._norm("k", self._heads(k))]
        keys.append(self._norm("k", keys[0]))
        values = [self._heads(v[:, :n]), self._heads(v_control)]
        if text is not None:
            layers = (self.add_k_proj, self.add_v_proj, self.add_q_proj)
            k_text, v_text, q_text = project_all(layers, text, bits)
            queries.append(self._norm("added_q", self._heads(q_text)))
            keys.append(self._norm("added_k", self._heads(k_text)))
            values.append(self._heads(v_text))
        attended = F.scaled_dot_product_attention(
            torch.cat(queries, dim=2), torch.cat(keys, dim=2), torch.cat(values, dim=2)
        )
        attended = attended.transpose(1, 2).flatten(2)
        image_out = project(self.to_out, attended[:, :n], bits)
        control_out = project(self.to_out_control, attended[:, n : 2 * n] + control, bits)
        text_out = None if text is None else project(self.to_add_out, attended[:, 2 * n :], bits)
        return torch.cat([image_out, control_out], dim=1), text_out


class Block(nn.Module):
    """One block, not the last."""

    def __init__(
        self,
        make: MakeLinear,
        *,
        dual: bool,
        grid: tuple[int, int],
        hidden: int = HIDDEN,
        heads: int = HEADS,
    ) -> None:
        super().__init__()
        self.dual, self.grid = dual, grid
        inner = 4 * hidden
        self.norm1 = make("norm1", (9 if dual else 6) * hidden, hidden)
        self.norm1_context = make("norm1_context", 6 * hidden, hidden)
        self.attn = Attention("attn", hidden, heads, make, text=True)
        self.attn2 = Attention("attn2", hidden, heads, make, text=False) if dual else None
        self.ff_in, self.ff_out = make("ff_in", inner, hidden), make("ff_out", hidden, inner)
        self.text_in, self.text_out = (
            make("text_in", inner, hidden),
            make("text_out", hidden, inner),
        )
        self.control_conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)

    def _mix_control(self, h: Tensor) -> Tensor:
        image, control = h.chunk(2, dim=1)
        on_grid = control.transpose(1, 2).unflatten(2, self.grid)
        mixed = self.control_conv(on_grid).flatten(2).transpose(1, 2)
        return torch.cat([image + CONTROL_CONV_GAIN * mixed, control], dim=1)

    def forward(
        self, latent: Tensor, text: Tensor, temb: Tensor, bits: ActivationBits | None
    ) -> tuple[Tensor, Tensor]:
        """``latent`` [B, 2n, C], ``text`` [B, m, C] and ``temb`` [B, C] to the first two."""
        own, context = project_all((self.norm1, self.norm1_context), F.silu(temb), bits)
        shift, scale, gate, shift_ff, scale_ff, gate_ff, *second = own.chunk(
            9 if self.dual else 6, dim=-1
        )
        shift_t, scale_t, gate_t, shift_tf, scale_tf, gate_tf = context.chunk(6, dim=-1)
        normed = self._norm(latent)
        out, text_out = self.attn(
            modulate(normed, shift, scale), modulate(self._norm(text), shift_t, scale_t), bits
        )
        latent = latent + gate[:, None] * out
        if self.attn2 is not None:
            shift2, scale2, gate2 = second
            out2, _ = self.attn2(modulate(normed, shift2, scale2), None, bits)
            latent = latent + gate2[:, None] * out2
        h = project(self.ff_in, modulate(self._norm(latent), shift_ff, scale_ff), bits)
        h = self._mix_control(F.gelu(h, approximate="tanh"))
        latent = latent + gate_ff[:, None] * project(self.ff_out, h, bits)
        text = text + gate_t[:, None] * text_out
        h = project(self.text_in, modulate(self._norm(text), shift_tf, scale_tf), bits)
        h = F.gelu(h, approximate="tanh")
        return latent, text + gate_tf[:, None] * project(self.text_out, h, bits)


class Step(nn.Module):
    """The two blocks of a step.

    Args:
        make: makes the linear layers, by name.
        grid: rows and columns of the image's tokens.
        hidden: width.
        heads: attention heads.
    """

    def __init__(
        self, make: MakeLinear, *, grid: tuple[int, int], hidden: int = HIDDEN, heads: int = HEADS
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                lambda name, n, k, kind=kind: make(f"{kind}.{name}", n, k),
                dual=kind == "dual",
                grid=grid,
                hidden=hidden,
                heads=heads,
            )
            for kind in ("dual", "single")
        )


def run_blocks(
    blocks: Sequence[Callable[..., tuple[Tensor, Tensor]]],
    latent: Tensor,
    text: Tensor,
    temb: Tensor,
    bits: ActivationBits | None = None,
    counts: Sequence[int] = (DUAL_BLOCKS, SINGLE_BLOCKS),
) -> Tensor:
    """The noisy and control streams after each of ``blocks`` ran as often as ``counts`` says."""
    for block, count in zip(blocks, counts, strict=True):
        for _ in range(count):
            latent, text = block(latent, text, temb, bits)
    return latent


def linears(step: nn.Module) -> dict[str, nn.Module]:
    """The layers that ``make`` made, by module path."""
    return {
        name: module
        for name, module in step.named_modules()
        if isinstance(module, nn.Linear) or hasattr(module, "resident_bytes")
    }
