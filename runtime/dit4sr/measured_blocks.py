"""DiT4SR's blocks by themselves: what `qrun bench` builds and times."""

from collections.abc import Sequence

from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from artifacts.family import Shape
from runtime.dit4sr.blocks import ControlBlock
from runtime.network.blocks import BlockFamily, BlockKind, Streams
from runtime.network.modulation import Conditioning
from runtime.network.projection import ActivationBits

CONTROL_KEYS = "keys of the control stream, which the published code overwrites"
TEXT_QUERIES = "text queries of the last block, whose text nothing reads"
CONTROL_OUTPUT = "control half of the last feed-forward's second layer, which nothing reads"


def block_kinds(config: TransformerConfig) -> list[BlockKind]:
    """Both kinds of block of a network, where it has them.

    The last block counts as one of its kind, although it computes less: it stands for its kind only
    where there is no other.
    """
    kinds = []
    for label, dual in (("two attentions", True), ("one attention", False)):
        indices = [
            index
            for index in range(config.num_layers)
            if (index in config.dual_attention_layers) == dual
        ]
        if indices:
            kinds.append(BlockKind(label, indices[0], len(indices)))
    return kinds


def build_block(config: TransformerConfig, variant: str, index: int) -> nn.Module:
    """Block ``index`` of a network."""
    return ControlBlock(
        config,
        variant,
        dual=index in config.dual_attention_layers,
        last=index == config.num_layers - 1,
    )


def input_shapes(config: TransformerConfig, streams: Streams) -> tuple[Shape, ...]:
    """Tokens [B, 2n, C], text [B, m, C], conditioning vector [B, C]."""
    width = config.hidden_size
    return (
        (streams.batch, 2 * streams.image_tokens, width),
        (streams.batch, streams.text_tokens, width),
        (streams.batch, width),
    )


def run_block(
    block: nn.Module, inputs: Sequence[Tensor], streams: Streams, bits: ActivationBits | None
) -> Tensor:
    """The block's image and control tokens [B, 2n, C]."""
    tokens, text, vector = inputs
    latent: Tensor = block(tokens, text, Conditioning(vector), streams.grid, bits)[0]
    return latent


def left_out(name: str) -> str:
    """Why less is computed in a layer than published.

    Raises:
        ValueError: nothing is known that could be left out there.
    """
    layer = name.split(".", 3)[3]
    if layer in ("to_k", "to_k_control"):
        return CONTROL_KEYS
    if layer == "add_q_proj":
        return TEXT_QUERIES
    if layer == "net.2":
        return CONTROL_OUTPUT
    raise ValueError(f"layer {name} computes something else than the published network")


BLOCKS = BlockFamily(
    count=lambda config: int(config.num_layers),
    kinds=block_kinds,
    prefix=lambda index: f"transformer_blocks.{index}.",
    build=build_block,
    input_shapes=input_shapes,
    run=run_block,
    left_out=left_out,
)
