"""What a result of ``qrun upscale`` records of how it was made (`runtime.images.made_with`).

Only what changes a picture on purpose counts: not the device, the backend or the number format, so
that a batch may go on elsewhere.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.cli.model import BaseOptions, NetworkOptions, PromptOptions
from runtime.images.result_style import ResultStyle

if TYPE_CHECKING:
    from runtime.images.made_with import MadeWith
    from runtime.remote.place import Place

_SHOWN_DIGITS = 16
_SAMPLING = {
    "steps": "steps",
    "guidance": "guidance",
    "tile": "tile_latent",
    "overlap": "overlap_latent",
    "color_fix": "color_fix",
}
"""Option -> its name among a pack's sampling defaults."""


def common_record(
    pack: Path | None,
    network: NetworkOptions,
    base: BaseOptions,
    prompts: PromptOptions,
    style: ResultStyle,
) -> "MadeWith":
    """What all results of a command have in common.

    A setting that is not given is that of the pack, where there is one; so a default that is
    written out is no other setting.
    """
    from runtime.model_identity import checkpoint_identity, pack_facts

    model, defaults = ("", {}) if pack is None else pack_facts(pack)
    record: dict[str, Any] = {"model": model}
    if network.full_precision is not None:
        record["model"] = checkpoint_identity(network.full_precision)
        record["parts"] = model or None
        record["variant"] = network.variant
    for option, name in _SAMPLING.items():
        given = getattr(network, option)
        scaled_with_tile = option == "overlap" and network.tile is not None
        record[option] = given if given is not None or scaled_with_tile else defaults.get(name)
    record |= {
        "seed": network.seed,
        "fidelity": network.fidelity or None,
        "activation_bits": network.activation_bits,
        "prompt": prompts.prompt,
        "negative_prompt": prompts.negative_prompt,
    }
    record |= style.record()
    files = {"checkpoint": network.checkpoint}
    files |= {name: getattr(base, name) for name in ("base", "clip_l", "clip_g", "t5xxl")}
    for name, file in files.items():
        record[name] = None if file is None else file.name
    return {name: value for name, value in record.items() if value is not None}


@dataclass(frozen=True)
class Records:
    """What the results of a command record, each when asked for.

    Attributes:
        read_common: what all have in common; reads the pack, so it is called with the first result.
        captions: image -> its own prompt.
    """

    read_common: "Callable[[], MadeWith]"
    captions: "Mapping[Place, str]"

    @cached_property
    def common(self) -> "MadeWith":
        """What all results have in common."""
        return self.read_common()

    def of(self, source: "Place", file: Path | None) -> "MadeWith":
        """What the result of ``source`` records, whose content is in ``file``, or left out."""
        return record_of(self.common, file, self.captions.get(source))

    def settled(self) -> "Records":
        """The same for a process elsewhere, which reads nothing for it."""
        return Records(partial(dict, self.common), self.captions)


def record_of(common: "MadeWith", source: Path | None, caption: str | None) -> "MadeWith":
    """What one result records: what all have, its caption, and its input, unless that is None."""
    own = {} if caption is None else {"prompt": caption}
    if source is None:
        return {**common, **own}
    try:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:_SHOWN_DIGITS]
    except OSError:
        digest = "unreadable"  # told as a fault of the image
    return {**common, **own, "input": digest}
