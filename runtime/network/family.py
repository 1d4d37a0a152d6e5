"""What running a network of some family takes: the network itself, and how it is tried out.

The other half of `artifacts.family.Family`, which names the module that holds this one.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from artifacts.family import Architecture, Config, Family
from runtime.network.blocks import BlockFamily
from runtime.network.modulation import Conditioning, TableIndex
from schemas.errors import UsageError

PictureFeatures = Callable[[Tensor], Tensor]
"""A picture [1, 3, H, W], 0 ... 1 -> its features [m, J], float32."""


class LatentNetwork(nn.Module):
    """A network that predicts the velocity of a noisy latent, given a low-resolution one.

    Its ``forward`` takes the noisy latent and the control latent [B, C, h, w], prompt tokens
    [B, m, J] or features of the picture, pooled prompts [B, P], timesteps [B] (0 ... 1000) and the
    activation bits of every quantized layer (None leaves activations unquantized); it returns
    [B, C, h, w].

    Attributes:
        table_index: finds the results of modulation layers in their tables; None where all of them
            are computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table_index: TableIndex | None = None

    def modulation_input(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """What modulation layers read [B, C], of timesteps [B] and pooled prompts [B, P]."""
        raise TypeError(f"{type(self).__name__} has no modulation layers")

    def condition(self, timestep: Tensor, pooled: Tensor) -> Conditioning:
        """What `project_modulations` takes, of timesteps [B] and pooled prompts [B, P]."""
        if self.table_index is None:
            return Conditioning(self.modulation_input(timestep, pooled))
        rows = self.table_index(timestep, pooled)
        if not self.table_index.complete:
            return Conditioning(None, rows)
        return Conditioning(self.modulation_input(timestep, pooled), rows)

    @property
    def recomputable(self) -> Sequence[nn.Module]:
        """Blocks whose inner activations a derivative may compute again instead of keeping."""
        return ()


@dataclass(frozen=True, eq=False)
class NetworkFamily:
    """The networks of one family.

    Attributes:
        build: configuration, variant -> the network; its parameters are those of
            `Family.tensor_shapes`, and its quantizable layers ``nn.Linear``.
        probe_config: configuration -> one of the same structure and a few channels, to find out by
            running it which parameters matter.
        probe_inputs: small configuration, generator -> float64 inputs of ``forward``, without the
            activation bits.
        sample: from noise to a latent, with the signature of `runtime.sampling.sampler.sample`,
            which it is for flow matching.
        blocks: the network's blocks by themselves.
        load_picture_features: folders that may hold the image encoder, configuration, device ->
            what makes features; for networks that read these instead of prompts.
    """

    build: Callable[[Config, str], LatentNetwork]
    probe_config: Callable[[Config], Config]
    probe_inputs: Callable[[Config, torch.Generator], tuple[Tensor, ...]]
    sample: Callable[..., Tensor]
    blocks: BlockFamily | None = None
    load_picture_features: (
        Callable[[Sequence[Path], Config, torch.device], PictureFeatures] | None
    ) = None


def network_family(family: Family) -> NetworkFamily:
    """The other half of ``family``; imports the module that it names."""
    found: NetworkFamily = importlib.import_module(family.runtime).FAMILY
    return found


def load_picture_features(
    folders: Sequence[Path], device: torch.device, architecture: Architecture
) -> PictureFeatures | None:
    """What makes the features that a network reads; None for a network that reads prompts.

    Args:
        folders: may hold the image encoder; the first that has one is taken.
        device: where the encoder runs.
        architecture: of the network.

    Raises:
        CheckpointError: the encoder is damaged, or another network's.
        UsageError: there is none.
    """
    load = network_family(architecture.family).load_picture_features
    return None if load is None else load(folders, architecture.config, device)


def block_family(family: Family) -> BlockFamily:
    """The blocks of ``family``.

    Raises:
        UsageError: its networks have none that could be measured by themselves.
    """
    blocks = network_family(family).blocks
    if blocks is None:
        raise UsageError(f"{family.title} has no blocks to measure by themselves")
    return blocks


def empty_network(architecture: Architecture) -> LatentNetwork:
    """The network of an architecture, on the meta device: shapes without memory."""
    with torch.device("meta"):
        return network_family(architecture.family).build(architecture.config, architecture.variant)
