"""Prompts that a model has by name, where it was trained without a text encoder.

named-prompts.safetensors    NAME.embeds [tokens, width], NAME.pooled [pooled width]
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from artifacts.files.safetensors_io import read_header
from runtime.prompts.encoders import TextEmbedding
from schemas.errors import CheckpointError, UsageError

NAMED_PROMPTS = "named-prompts.safetensors"
_EMBEDS = ".embeds"


def find_by_name(folders: Sequence[Path], names: Iterable[str]) -> dict[str, TextEmbedding]:
    """The prompts ``names`` of the first folder that has any by name; none where no folder has.

    Raises:
        UsageError: the folder has no prompt of that name; the message lists those it has.
        CheckpointError: the file is damaged.
    """
    file = next((f / NAMED_PROMPTS for f in folders if (f / NAMED_PROMPTS).is_file()), None)
    if file is None:
        return {}
    header = read_header(file, error=CheckpointError)
    known = [name.removesuffix(_EMBEDS) for name in header.tensors if name.endswith(_EMBEDS)]
    found = {}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{name!r} is no prompt of {file.parent}, which has no text encoders either",
                hint=f"it knows {', '.join(map(repr, sorted(known)))}",
            )
        if f"{name}.pooled" not in header.tensors:
            raise CheckpointError(f"{file}: {name}.pooled is missing")
        embeds, pooled = (
            header.read(f"{name}.{part}", error=CheckpointError) for part in ("embeds", "pooled")
        )
        for part in (embeds, pooled):
            if not part.is_floating_point() or not bool(torch.isfinite(part).all()):
                raise CheckpointError(f"{file}: {name} holds something else than finite numbers")
        found[name] = TextEmbedding(embeds, pooled)
    return found
