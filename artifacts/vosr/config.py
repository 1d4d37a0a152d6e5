"""The configuration of a one-step VOSR transformer, in the words of its ``args.json``.

That file is the training program's: beside the network's sizes it holds learning rates, paths and
the like, which are not read.
"""

from typing import Annotated, Literal, Self

from pydantic import FailFast, Field, model_validator

from schemas.bounds import at_most
from schemas.strict import StrictModel

MAX_BLOCKS = 1024
MAX_TABLE_VALUES = 2**26
"""Largest rotary table. It is rebuilt from the configuration alone, so no file size bounds it; the
published ones have 2^16 values."""
VAE_FACTOR = 8
"""Image pixels per latent pixel, of both published autoencoders."""
ENCODER_PATCH_PX = 14
"""Side of DINOv2's patches."""
LATENT_CHANNELS = {"sd2": 4, "qwen": 16}
"""Of the autoencoders that ``ae_type`` may name: Stable Diffusion 2.1's, and Qwen-Image's."""

Width = Annotated[int, Field(ge=1, le=65536)]
# JSON has no tuples: let a list through, then hold it as a tuple so that the model stays hashable.
LayerIndices = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MAX_BLOCKS)], ...],
    FailFast(),
    at_most(MAX_BLOCKS),
    Field(strict=False, min_length=1),
]


class VosrConfig(StrictModel):
    """Shapes of one VOSR transformer.

    Attributes:
        resolution: side of the training images, in px.
        patch_size: side of one token's square patch, in latent pixels.
        dim: width of one token inside the blocks.
        depth: transformer blocks.
        num_heads: of both attentions; divides ``dim``.
        mlp_ratio: width inside a feed-forward, over ``dim``, of which SwiGLU takes two thirds.
        ae_type: the autoencoder.
        dinov2_size: side of the picture that the image encoder is given, in px.
        enc_dim: width of its features.
        layer_dinov2b_list: its blocks whose outputs are features, counted from 0; the network reads
            the first of them.
        encdim_ratio: width between the two layers that features go through, over ``dim``.
        use_qknorm, use_swiglu, use_rope, use_rmsnorm: as both published networks have them.
        wo_shift: read by no published code.
    """

    resolution: Annotated[int, Field(ge=VAE_FACTOR, le=65536)]
    patch_size: Annotated[int, Field(ge=1, le=64)]
    dim: Width
    depth: Annotated[int, Field(ge=1, le=MAX_BLOCKS)]
    num_heads: Width
    mlp_ratio: Annotated[float, Field(gt=0, le=64)]
    ae_type: Literal["sd2", "qwen"]
    dinov2_size: Width
    enc_dim: Width
    layer_dinov2b_list: LayerIndices
    encdim_ratio: Annotated[int, Field(ge=1, le=64)]
    use_qknorm: Literal[True] = True
    use_swiglu: Literal[True] = True
    use_rope: Literal[True] = True
    use_rmsnorm: Literal[True] = True
    wo_shift: Literal[False] = False

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads

    @property
    def hidden_features(self) -> int:
        """Width inside a feed-forward, rounded as the published network rounds it."""
        return int(2 / 3 * int(self.dim * self.mlp_ratio))

    @property
    def latent_channels(self) -> int:
        """Channels of the latent; the network reads twice as many."""
        return LATENT_CHANNELS[self.ae_type]

    @property
    def trained_tokens(self) -> int:
        """Side of the training latents, in tokens."""
        return self.resolution // (VAE_FACTOR * self.patch_size)

    @property
    def encoder_block(self) -> int:
        """The image encoder's block whose output the network reads, counted from 0."""
        return self.layer_dinov2b_list[0]

    @property
    def feature_tokens(self) -> int:
        """Features of one picture."""
        return (self.dinov2_size // ENCODER_PATCH_PX) ** 2

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dim % self.num_heads or self.head_dim % 4:
            # Rotary positions turn pairs of channels, half of them by rows, half by columns.
            raise ValueError(
                f"dim {self.dim} in {self.num_heads} heads gives no heads of a multiple of 4"
            )
        if self.resolution % (VAE_FACTOR * self.patch_size):
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of a token's"
                f" {VAE_FACTOR * self.patch_size} px"
            )
        if self.dinov2_size % ENCODER_PATCH_PX:
            raise ValueError(
                f"dinov2_size {self.dinov2_size} is not a multiple of {ENCODER_PATCH_PX}"
            )
        if self.hidden_features < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves the feed-forward no channel")
        if self.trained_tokens**2 * self.head_dim > MAX_TABLE_VALUES:
            raise ValueError(
                f"resolution {self.resolution} with heads of {self.head_dim} gives a rotary table"
                " that is too large"
            )
        return self


VOSR_05B = VosrConfig(
    resolution=512,
    patch_size=2,
    dim=1024,
    depth=28,
    num_heads=16,
    mlp_ratio=4,
    ae_type="sd2",
    dinov2_size=448,
    enc_dim=768,
    layer_dinov2b_list=(8,),
    encdim_ratio=3,
)
"""The published network of 487 M parameters; features of DINOv2 ViT-B/14."""

VOSR_14B = VosrConfig(
    resolution=512,
    patch_size=2,
    dim=1536,
    depth=36,
    num_heads=24,
    mlp_ratio=4,
    ae_type="qwen",
    dinov2_size=448,
    enc_dim=1024,
    layer_dinov2b_list=(17,),
    encdim_ratio=3,
)
"""The published network of 1,397 M parameters; features of DINOv2 ViT-L/14."""
