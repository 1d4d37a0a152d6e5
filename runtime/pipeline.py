"""The parts an upscale needs, loaded and on their device: what `runtime.load` hands out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from artifacts.family import Architecture
from runtime.network.family import LatentNetwork, PictureFeatures, network_family
from runtime.network.graphed_network import GraphedNetwork, can_be_graphed
from runtime.network.projection import ActivationBits
from runtime.prompts.encoders import TextEmbedding
from runtime.sampling.bit_schedule import BitsAt
from runtime.sampling.settings import UpscaleSettings
from schemas.errors import PackError
from schemas.manifest import ModulationRecord

Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, ActivationBits | None], Tensor]
"""`LatentNetwork.forward`: noisy latent, control latent, prompt, pooled prompt, timestep, bits."""


@dataclass(frozen=True)
class Prompts:
    """Embeddings of the positive and the negative prompt.

    Attributes:
        positive_embeds, negative_embeds: prompt tokens [m, joint_attention_dim], of one length.
        positive_pooled, negative_pooled: pooled prompt [pooled_projection_dim].

    Raises:
        PackError: the two prompts differ in shape, so that they cannot share a batch.
    """

    positive_embeds: Tensor
    positive_pooled: Tensor
    negative_embeds: Tensor
    negative_pooled: Tensor

    def __post_init__(self) -> None:
        for positive, negative in (
            (self.positive_embeds, self.negative_embeds),
            (self.positive_pooled, self.negative_pooled),
        ):
            if positive.shape != negative.shape:
                raise PackError(
                    f"the positive prompt's embeddings {tuple(positive.shape)} and the negative"
                    f" prompt's {tuple(negative.shape)} differ in shape"
                )

    def to(self, device: torch.device, dtype: torch.dtype) -> "Prompts":
        """Return the prompts on ``device`` in ``dtype``."""
        return Prompts(
            *(
                tensor.to(device, dtype)
                for tensor in (
                    self.positive_embeds,
                    self.positive_pooled,
                    self.negative_embeds,
                    self.negative_pooled,
                )
            )
        )


@dataclass(frozen=True)
class Pipeline:
    """A network with all it takes to turn one image into another.

    Attributes:
        architecture: of the network.
        network: in evaluation mode, on ``device``, its floating-point parts in ``dtype``.
        vae: on ``device``, in a dtype of its own.
        prompts: on ``device``, in ``dtype``; without tokens where the network reads features of the
            picture.
        captions: embeddings of prompts of single images, by text; anywhere, in any dtype.
        bits_at: the bit grid, looked up by timestep.
        sampling: the defaults of this model.
        device, dtype: where the network computes, and what its inputs are cast to.
        table: the timesteps and prompts that the network has modulations for; None for all.
        picture_features: makes what a network reads that takes no prompts; None for one that does.
    """

    architecture: Architecture = field(repr=False)
    network: LatentNetwork = field(repr=False)
    vae: AutoencoderKL = field(repr=False)
    prompts: Prompts = field(repr=False)
    bits_at: BitsAt = field(repr=False)
    sampling: UpscaleSettings
    device: torch.device
    dtype: torch.dtype
    captions: Mapping[str, TextEmbedding] = field(default_factory=dict, repr=False)
    table: ModulationRecord | None = field(default=None, repr=False)
    picture_features: PictureFeatures | None = field(default=None, repr=False)

    def prompts_for(self, caption: str | None) -> Prompts:
        """The prompts of one image, on `device` in `dtype`; None for those of all.

        Args:
            caption: a key of `captions`, whose embedding replaces the positive prompt's.
        """
        if caption is None:
            return self.prompts
        embedding = self.captions[caption]
        return replace(
            self.prompts,
            positive_embeds=embedding.embeds.to(self.device, self.dtype),
            positive_pooled=embedding.pooled.to(self.device, self.dtype),
        )

    def condition_on(self, picture: Tensor) -> Prompts | None:
        """What the network is given of a picture in place of prompts; None where it takes these.

        Args:
            picture: enlarged and padded [1, 3, H, W], 0 ... 1.
        """
        if self.picture_features is None:
            return None
        features = self.picture_features(picture).to(self.device, self.dtype)
        shapes = self.architecture.family.prompt_shapes(self.architecture.config, len(features))
        pooled = features.new_zeros(shapes["pooled"])
        return Prompts(features, pooled, features, pooled)

    @cached_property
    def velocity(self) -> Network:
        """What a sampler calls: the network itself, or its CUDA graphs where there can be some.

        Made when first asked for and kept, so that all tiles and images share the graphs. Whoever
        watches the network's layers calls `network`.
        """
        if can_be_graphed(self.network, self.device):
            return GraphedNetwork(self.network)
        return self.network

    @property
    def sample(self) -> Callable[..., Tensor]:
        """The sampling loop of the network's family; `runtime.sampling.sampler.sample` says how."""
        return network_family(self.architecture.family).sample

    def release_graphs(self) -> bool:
        """Give up the CUDA graphs for good; whether that gave memory back."""
        return isinstance(self.velocity, GraphedNetwork) and self.velocity.release()

    def with_prompts(self, prompts: Prompts) -> "Pipeline":
        """This pipeline with other prompts, which share its network and its CUDA graphs."""
        changed = replace(self, prompts=prompts)
        # Where `cached_property` keeps it.
        changed.__dict__["velocity"] = self.velocity
        return changed

    @property
    def patch_size(self) -> int:
        """Side of one token's patch, in latent pixels."""
        return self.architecture.latent_size.patch_size

    @property
    def largest_tile(self) -> int:
        """Longest side of a latent that the network takes, in latent pixels."""
        return self.architecture.latent_size.largest_tile

    @property
    def vae_factor(self) -> int:
        """How many image pixels one latent pixel spans along a side."""
        return vae_factor(self.vae)


def vae_factor(vae: AutoencoderKL) -> int:
    """How many image pixels one latent pixel of ``vae`` spans along a side."""
    halvings = len(vae.config.block_out_channels) - 1
    return int(2**halvings)
