"""Other prompts for a model that is loaded already."""

import logging
from pathlib import Path

from runtime.pipeline import Pipeline
from runtime.prompts.find import find_prompts
from runtime.prompts.pooled import POOLED_KEPT, with_own_pooled
from runtime.prompts.texts import ENCODER_HINT, PromptTexts

logger = logging.getLogger(__name__)


def with_texts(pipeline: Pipeline, base: Path | None, texts: PromptTexts) -> Pipeline:
    """``pipeline`` with ``texts`` in place of its prompts; a side that is None stays as it is.

    Args:
        pipeline: stays as it is, and shares its network.
        base: a folder with text encoders or named prompts, or None.
        texts: the prompts.

    Raises:
        UsageError: nothing can encode them.
        CheckpointError: an encoder is damaged.
    """
    prompts = pipeline.prompts
    own = {
        f"{side}.{part}": getattr(prompts, f"{side}_{part}")
        for side in ("positive", "negative")
        for part in ("embeds", "pooled")
    }
    folders = [] if base is None else [base]
    found, _ = find_prompts(own, folders, texts, pipeline.architecture, hint=ENCODER_HINT)
    found = found.to(pipeline.device, pipeline.dtype)
    if pipeline.table is not None:
        found, _, changed = with_own_pooled(found, {}, own)
        if changed:
            logger.info("%s", POOLED_KEPT)
    return pipeline.with_prompts(found)
