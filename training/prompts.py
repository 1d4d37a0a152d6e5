"""Named prompts: what each asks for, and the tokens that stand for it.

There is no text encoder in training. A prompt is a few fixed random tokens, and what it means is
learned from what its samples have as their target. All prompts share one pooled vector, so the
meaning reaches the network through the text stream alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from training.degradation.resampling import FloatImage

TOKENS = 8

Target = Callable[[FloatImage, FloatImage], FloatImage]
"""(sharp truth, degraded picture enlarged back) -> what the prompt asks for, all [H, W, 3]."""


def _sharpened(truth: FloatImage, _degraded: FloatImage) -> FloatImage:
    """Unsharp masking, about as a photo editor does it."""
    return np.clip(truth + 0.6 * (truth - gaussian_filter(truth, (1.5, 1.5, 0))), 0, 1)


def _smoothed(truth: FloatImage, _degraded: FloatImage) -> FloatImage:
    """Clean, without fine detail."""
    smoothed: FloatImage = gaussian_filter(truth, (1.6, 1.6, 0))
    return smoothed


@dataclass(frozen=True)
class Prompt:
    """One named prompt.

    Attributes:
        name: as a user would write it.
        share: of training samples.
        target: what it asks for.
    """

    name: str
    share: float
    target: Target


PROMPTS = (
    Prompt("natural", 0.5, lambda truth, _degraded: truth),
    Prompt("sharp", 0.2, _sharpened),
    Prompt("smooth", 0.15, _smoothed),
    Prompt("low quality", 0.15, lambda _truth, degraded: degraded),
)
NAMES = tuple(prompt.name for prompt in PROMPTS)


def draw_prompt(rng: np.random.Generator) -> int:
    """Index into ``PROMPTS``, by share."""
    return int(rng.choice(len(PROMPTS), p=[prompt.share for prompt in PROMPTS]))


@dataclass(frozen=True)
class PromptTable:
    """Embeddings of all prompts.

    Attributes:
        embeds: [prompts, TOKENS, joint_attention_dim].
        pooled: [prompts, pooled_projection_dim], every row the same.
    """

    embeds: Tensor
    pooled: Tensor

    @classmethod
    def draw(cls, seed: int, *, width: int, pooled_width: int) -> "PromptTable":
        """Random values that bfloat16 represents exactly."""
        generator = torch.Generator().manual_seed(seed)
        embeds = torch.randn(len(PROMPTS), TOKENS, width, generator=generator)
        pooled = torch.randn(1, pooled_width, generator=generator).expand(len(PROMPTS), -1)
        return cls(embeds.bfloat16().float(), pooled.bfloat16().float())

    def to(self, device: torch.device) -> "PromptTable":
        """The table on ``device``."""
        return PromptTable(self.embeds.to(device), self.pooled.to(device))

    def pair(self, positive: str, negative: str) -> dict[str, Tensor]:
        """Two prompts under the names a pack gives them."""
        sides = {"positive": NAMES.index(positive), "negative": NAMES.index(negative)}
        return {
            f"{side}.{part}": getattr(self, part)[index].contiguous()
            for side, index in sides.items()
            for part in ("embeds", "pooled")
        }
