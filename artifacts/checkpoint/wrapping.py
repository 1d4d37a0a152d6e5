"""What training programs put around a network's tensors: a prefix before every name, a step count.

    model.diffusion_model.  transformer.  module.  _orig_mod.  net.  ema_model.

are what ComfyUI, pipelines, DistributedDataParallel, torch.compile, Lightning and EMA wrappers
write. A prefix is known by being common to all names, not by its words: a network of several
modules has none of its own.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from artifacts.family import Family, Shape, families
from artifacts.files.safetensors_io import Header, TensorInfo
from schemas.errors import CheckpointError

SHOWN_NAMES = 3

Headers = tuple[Header, ...]


def unwrap(headers: Headers) -> tuple[Headers, Family | None, list[str]]:
    """Find the family whose network this is, and take a common prefix off all names.

    Args:
        headers: of all weight files.

    Returns:
        The headers, with the network's own names where it was recognised; the family, or None; and
        what was done, one line each. Single numbers outside the prefix are left out.
    """
    tensors = {name: info for header in headers for name, info in header.tensors.items()}
    shapes = {name: info.shape for name, info in tensors.items()}
    family = _family_of(shapes)
    if family is not None:
        return headers, family, []
    prefix = _common_prefix(name for name, info in tensors.items() if not is_scalar(info))
    if not prefix:
        return headers, None, []
    own = {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}
    family = _family_of(own)
    if family is None:
        return headers, None, []
    outside = sorted(name for name in tensors if not name.startswith(prefix))
    notes = [f"all names begin with {prefix[:200]!r}, which is left out"]
    return tuple(_renamed(header, prefix) for header in headers), family, notes + ignored(outside)


def not_a_network(path: object, names: Iterable[str]) -> CheckpointError:
    """The error for tensors that no family knows; it is about the one that comes nearest."""
    shapes: dict[str, Shape] = dict.fromkeys(names, ())
    absent, family = min(
        ((known.lacks(shapes), known) for known in families()), key=lambda pair: len(pair[0])
    )
    found = ", ".join(name[:200] for name in sorted(shapes)[:SHOWN_NAMES]) or "no tensor"
    return CheckpointError(
        f"{path}: not a {family.title} transformer: it lacks {', '.join(absent[:SHOWN_NAMES])}"
        f" and holds {found}, ... ({len(shapes)} in all)",
        hint=_hint(family, shapes),
    )


def is_scalar(info: TensorInfo) -> bool:
    """Whether a tensor has one number at most: a counter or a flag, but no weight."""
    return all(size <= 1 for size in info.shape)


def ignored(names: Sequence[str]) -> list[str]:
    """The line that says which tensors were left out; none for none."""
    if not names:
        return []
    shown = ", ".join(name[:200] for name in names[:SHOWN_NAMES])
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return [f"ignored single numbers that are no part of the network: {shown}{more}"]


def _hint(family: Family, shapes: dict[str, Shape]) -> str:
    if family.is_base_model(shapes):
        return f"this is the base model: give it as --base, and the {family.title} transformer here"
    (first, *_) = family.lacks({})
    prefixes = sorted({n.removesuffix(first) for n in shapes if n.endswith(f".{first}")})
    if prefixes:
        shown = ", ".join(prefix[:200] for prefix in prefixes[:SHOWN_NAMES])
        return f"save the tensors under {shown} in a file of their own"
    if 2 * len(family.lacks(shapes)) <= len(family.lacks({})):
        return "it may be a part of one: save or download all of it again"
    return f"name the {family.title} transformer's own weights, not a whole pipeline in one file"


def _family_of(shapes: dict[str, Shape]) -> Family | None:
    return next((family for family in families() if not family.lacks(shapes)), None)


def _common_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to a dot."""
    ordered = sorted(names)
    if not ordered:
        return ""
    first, last = ordered[0].split(".")[:-1], ordered[-1].split(".")[:-1]
    parts = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{part}." for part, _ in parts)


def _renamed(header: Header, prefix: str) -> Header:
    own = {
        name.removeprefix(prefix): info
        for name, info in header.tensors.items()
        if name.startswith(prefix)
    }
    return replace(header, tensors=own)
