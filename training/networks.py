"""The networks that can be trained: name, shape, seed."""

from dataclasses import dataclass

from artifacts.dit4sr.config import TransformerConfig

PATCHES = 48
"""Side of the position table. Training uses its middle 24 x 24, a tile of 192 px."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network.

    Attributes:
        name: of its folder.
        config: its shape.
        seed: of weights, prompts and noise.
        note: one sentence for the model card.
        start_sigma: 1 for a network that samples from noise; below, one that restores in one
            evaluation from the control latent under this share of noise.
    """

    name: str
    config: TransformerConfig
    seed: int
    note: str
    start_sigma: float = 1.0


def _config(*, heads: int, blocks: int, dual: int) -> TransformerConfig:
    """Heads of 32, prompts of width 64; the first ``dual`` blocks have two attentions."""
    width = 32 * heads
    return TransformerConfig(
        sample_size=32,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=32,
        joint_attention_dim=64,
        caption_projection_dim=width,
        pooled_projection_dim=64,
        pos_embed_max_size=PATCHES,
        dual_attention_layers=tuple(range(dual)),
    )


MINI = NamedNetwork(
    name="dit4sr-mini",
    config=_config(heads=6, blocks=6, dual=3),
    seed=0,
    note="A hundredth of DiT4SR's size: hidden width 192, 6 blocks.",
)
NARROW = NamedNetwork(
    name="dit4sr-narrow",
    config=_config(heads=3, blocks=8, dual=1),
    seed=1,
    note="Narrower and deeper than dit4sr-mini, for judging recipes: hidden width 96, 8 blocks.",
)
WIDE = NamedNetwork(
    name="dit4sr-wide",
    config=_config(heads=12, blocks=8, dual=4),
    seed=2,
    note="Five times dit4sr-mini's size, to see what size buys: hidden width 384, 8 blocks.",
)
ONE_STEP = NamedNetwork(
    name="dit4sr-mini-onestep",
    config=MINI.config,
    seed=MINI.seed,
    note="dit4sr-mini retrained to restore in one evaluation.",
    start_sigma=0.3,
)
NETWORKS = {network.name: network for network in (MINI, NARROW, WIDE, ONE_STEP)}
