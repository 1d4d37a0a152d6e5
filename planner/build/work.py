"""What a layer multiplies in the forward pass that a pack is made for."""

from artifacts.family import Architecture
from planner.build.base_model import BaseModel
from planner.estimate.accounting import layer_macs


def layer_work(architecture: Architecture, base: BaseModel) -> dict[str, int]:
    """Multiply-accumulates of every block linear in one forward pass over a full tile.

    Args:
        architecture: the network.
        base: whose sampling defaults have the tile, and whose prompts their length; without any,
            prompts are as long as the published network's.
    """
    side = base.sampling.tile_latent // architecture.latent_size.patch_size
    prompts = base.prompts or {}
    text_tokens = max(
        (len(tensor) for name, tensor in prompts.items() if name.endswith(".embeds")),
        default=architecture.family.text_tokens,
    )
    return layer_macs(architecture, architecture.family.streams(side**2, text_tokens))
