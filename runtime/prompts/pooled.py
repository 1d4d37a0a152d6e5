"""Other prompts for a network that has modulations for the pooled prompts of its pack alone."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from runtime.pipeline import Prompts
from runtime.prompts.encoders import TextEmbedding

POOLED_KEPT = (
    "the pack has modulations for its own prompts alone: another prompt changes the text tokens,"
    " and its pooled vector stays the pack's (--checkpoint computes it)"
)


def with_own_pooled(
    prompts: Prompts, captions: Mapping[str, TextEmbedding], own: Mapping[str, Tensor]
) -> tuple[Prompts, Mapping[str, TextEmbedding], bool]:
    """Prompts and captions with the pack's pooled vectors in the place of theirs.

    Args:
        prompts: of the run.
        captions: positive prompts of single images.
        own: the pack's embeddings, under its names.

    Returns:
        Both, and whether any vector was another.
    """
    positive, negative = own["positive.pooled"], own["negative.pooled"]
    pairs = [(prompts.positive_pooled, positive), (prompts.negative_pooled, negative)]
    pairs += [(caption.pooled, positive) for caption in captions.values()]
    changed = any(not torch.equal(vector.float(), kept.float()) for vector, kept in pairs)
    return (
        replace(prompts, positive_pooled=positive, negative_pooled=negative),
        {text: replace(caption, pooled=positive) for text, caption in captions.items()},
        changed,
    )
