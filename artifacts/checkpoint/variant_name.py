"""Which variant a checkpoint is, as far as its name says: its tensors do not."""

import re
from collections.abc import Iterator
from pathlib import Path

from artifacts.checkpoint.weight_files import TRANSFORMER_FOLDER, WEIGHT_FILES
from artifacts.family import Family

SEARCHED_PARENTS = 3

_WORDS = re.compile(r"[^a-z0-9]+")


def named_variant(path: Path, family: Family) -> tuple[str, str] | None:
    """The variant in the name of a checkpoint's file or folder, and that name; None for none.

    Of a family ``net`` with a variant ``b``, ``net_b/``, ``net_b/transformer`` and
    ``Net-b-bf16.safetensors`` are of the variant ``b``: a word of the name equals it, and no word
    equals another. A folder further up counts only where its name also says the family's, as in
    ``net_b/checkpoint-5000/``.

    Args:
        path: of the file or the folder, as the user named it.
        family: of its tensors.
    """
    for distance, name in enumerate(_names(path)):
        words = _WORDS.split(name.lower())
        found = [variant for variant in family.variants if variant in words]
        if len(found) == 1 and (distance == 0 or family.name in words):
            return found[0], name
    return None


def _names(path: Path) -> Iterator[str]:
    """What the user calls the model, then the folders it lies in; standard names say nothing."""
    absolute = path.absolute()
    standard = {name.removesuffix(".safetensors") for name in WEIGHT_FILES}
    for place in (absolute, *absolute.parents[:SEARCHED_PARENTS]):
        name = place.name.removesuffix(".safetensors")
        plain = re.sub(r"-\d{5}-of-\d{5}$", "", name)
        if name and name != TRANSFORMER_FOLDER and plain.partition(".")[0] not in standard:
            yield name
