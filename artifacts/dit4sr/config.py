"""The configuration of a DiT4SR transformer, in the words of a diffusers ``config.json``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, model_validator

from schemas.bounds import at_most
from schemas.strict import StrictModel

MAX_BLOCKS = 1024
MAX_TABLE_SIDE = 512
"""Longest side of the position table, in tokens; the published model has 384."""
MAX_POSITION_VALUES = 2**28
"""Largest position table. It is rebuilt from its sides alone, so no file size bounds it; the
published one has 2^27.8 values."""

Width = Annotated[int, Field(ge=1, le=65536)]
# JSON has no tuples: let a list through, then hold it as a tuple so that the model stays hashable.
LayerIndices = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], FailFast(), at_most(MAX_BLOCKS), Field(strict=False)
]


class TransformerConfig(StrictModel):
    """Shapes of one DiT4SR transformer. The defaults are the published 2.7 B model.

    Attributes:
        sample_size: side of the latent it was trained on, in latent pixels.
        patch_size: side of one token's square patch, in latent pixels.
        in_channels, out_channels: latent channels read and predicted.
        num_layers: transformer blocks.
        num_attention_heads, attention_head_dim: their product is the hidden width.
        joint_attention_dim: width of one prompt token.
        caption_projection_dim: width the prompt is projected to; equals the hidden width.
        pooled_projection_dim: width of the pooled prompt.
        pos_embed_max_size: side of the position table, in tokens.
        dual_attention_layers: blocks with a second, text-free attention.
        qk_norm: normalisation of queries and keys.
    """

    sample_size: Width = 128
    patch_size: Annotated[int, Field(ge=1, le=64)] = 2
    in_channels: Width = 16
    out_channels: Width = 16
    num_layers: Annotated[int, Field(ge=1, le=MAX_BLOCKS)] = 24
    num_attention_heads: Width = 24
    attention_head_dim: Width = 64
    joint_attention_dim: Width = 4096
    caption_projection_dim: Width = 1536
    pooled_projection_dim: Width = 2048
    pos_embed_max_size: Annotated[int, Field(ge=1, le=MAX_TABLE_SIDE)] = 384
    dual_attention_layers: LayerIndices = tuple(range(13))
    qk_norm: Literal["rms_norm"] = "rms_norm"

    @property
    def hidden_size(self) -> int:
        """Width of one token inside the blocks."""
        return self.num_attention_heads * self.attention_head_dim

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.caption_projection_dim != self.hidden_size:
            raise ValueError(
                f"caption_projection_dim is {self.caption_projection_dim}, but heads x head size"
                f" is {self.hidden_size}"
            )
        if self.out_channels != self.in_channels:
            raise ValueError(
                f"out_channels is {self.out_channels}, but a velocity has the latent's channels,"
                f" {self.in_channels}"
            )
        if self.hidden_size % 4:
            # The sin-cos position table has four equal parts: sine and cosine of both axes.
            raise ValueError(f"hidden size {self.hidden_size} is not a multiple of 4")
        if self.sample_size < self.patch_size:
            raise ValueError(
                f"sample_size {self.sample_size} is smaller than patch_size {self.patch_size}"
            )
        if self.pos_embed_max_size**2 * self.hidden_size > MAX_POSITION_VALUES:
            raise ValueError(
                f"pos_embed_max_size {self.pos_embed_max_size} at width {self.hidden_size} gives a"
                " position table that is too large"
            )
        if list(self.dual_attention_layers) != sorted(set(self.dual_attention_layers)):
            raise ValueError("dual_attention_layers is not strictly ascending")
        if self.dual_attention_layers and self.dual_attention_layers[-1] >= self.num_layers:
            raise ValueError(
                f"dual_attention_layers names block {self.dual_attention_layers[-1]}, but there"
                f" are {self.num_layers} blocks"
            )
        return self

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> Self:
        """Read a diffusers ``config.json``: keys that start with ``_`` are diffusers' own notes.

        Raises:
            pydantic.ValidationError: a key is unknown, missing a constraint, or of another type.
        """
        return cls.model_validate(
            {key: value for key, value in config.items() if not key.startswith("_")}
        )
