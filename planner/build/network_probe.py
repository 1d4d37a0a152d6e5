"""Which parameters of a DiT4SR network can reach its output, found from the network itself.

A published checkpoint carries layers that no forward pass reads (the text projections of every
second attention, the last block's text queries, the control keys of the variants q and f). They
must neither draw on the bit budget nor take room in a pack. A list of names would have to be kept
in step with the network; instead the network is built with the same blocks but a few channels,
run once and differentiated: what gets no gradient is inactive.

This is the one planner module that may import the runtime. The import costs seconds (torch and
diffusers), so it waits until a probe is asked for.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from artifacts.dit4sr.layout import block_linears
from schemas.errors import PackError
from schemas.manifest import Manifest
from schemas.transformer_config import TransformerConfig, Variant

if TYPE_CHECKING:
    import torch

PROBE_SEED = 2602_01273
PROBE_TOKENS = (2, 3)
"""Rows and columns of the probe's latent, in tokens: not square, so that rows and columns which
the network might confuse do not cancel."""
PROBE_TEXT_TOKENS = 3


def probe_config(config: TransformerConfig) -> TransformerConfig:
    """Keep the block structure of ``config``, and shrink every width."""
    return TransformerConfig(
        num_layers=config.num_layers,
        dual_attention_layers=config.dual_attention_layers,
        qk_norm=config.qk_norm,
        sample_size=8,
        patch_size=1,
        in_channels=2,
        out_channels=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
    )


def _randomise(parameters: "Sequence[torch.nn.Parameter]", generator: "torch.Generator") -> None:
    """Fill matrices with normals of variance 1/fan_in, vectors with normals around 1.

    Nothing may stay at an initial zero or one: a zero layer would hide all layers behind it.
    """
    import torch  # noqa: PLC0415  (heavy: see the module docstring)

    with torch.no_grad():
        for parameter in parameters:
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(1.0, 0.5, generator=generator)


@cache
def find_active_tensors(config: TransformerConfig, variant: Variant) -> frozenset[str]:
    """Name the parameters that the output of the network depends on.

    Args:
        config: the network; only its number of blocks and its dual-attention blocks matter.
        variant: decides whether control keys are read.

    Returns:
        Names as in the checkpoint, ``transformer_blocks.0.attn.to_q.weight``; buffers (the
        position table) are not among them.
    """
    import torch  # noqa: PLC0415

    from runtime.dit4sr.network import DiT4SR  # noqa: PLC0415

    small = probe_config(config)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    # The caller's random state and gradient mode are none of the probe's business.
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        network = DiT4SR(small, variant).double()
        named = dict(network.named_parameters())
        _randomise(list(named.values()), generator)

        def sample(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        latent_shape = (2, small.in_channels, *PROBE_TOKENS)
        output = network(
            sample(*latent_shape),
            sample(*latent_shape),
            sample(2, PROBE_TEXT_TOKENS, small.joint_attention_dim),
            sample(2, small.pooled_projection_dim),
            torch.tensor([700.0, 20.0], dtype=torch.float64),
        )
        # A random projection: under a plain sum, gradients that differ in sign could cancel.
        projected = (output * sample(*output.shape)).sum()
        gradients = torch.autograd.grad(projected, list(named.values()), allow_unused=True)
    return frozenset(
        name
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is not None and bool(gradient.any())
    )


def active_linears(config: TransformerConfig, variant: Variant) -> list[str]:
    """Name the block linears whose weight is active, in the order of ``block_linears``."""
    active = find_active_tensors(config, variant)
    return [name for name in block_linears(config) if f"{name}.weight" in active]


def check_network(manifest: Manifest) -> None:
    """Make sure that a pack leaves out nothing that its network reads.

    Raises:
        PackError: names the first tensors that are needed and absent.
    """
    needed = find_active_tensors(manifest.model.config, manifest.model.variant)
    absent = sorted(needed & set(manifest.omitted))
    if absent:
        raise PackError(f"the network reads {', '.join(absent[:3])}, which the pack leaves out")
