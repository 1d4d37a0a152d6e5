"""The grid that a user asks for: a file, then single layers.

blocks.3.ff.*=8        both widths of the layers that the expression finds
to_v=W6                their weights alone
norm1=A8               their activations alone, at every timestep
ff=W6A4                both
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.bit_grid import BitGrid, LayerBits
from schemas.bit_widths import BIT_WIDTHS, UNQUANTIZED
from schemas.errors import UsageError
from schemas.json_io import read_json_file, validate
from schemas.patterns import compile_pattern

# [0-9] and not \d, which also takes the digits of other scripts.
_BITS = r"[0-9]{1,3}"
_EDIT = re.compile(
    rf"(?P<pattern>.+)=(?:(?P<both>{_BITS})|(?:w(?P<w>{_BITS}))?(?:a(?P<a>{_BITS}))?)",
    re.IGNORECASE | re.DOTALL,
)
_HINT = "as in --set 'blocks.3.ff=8', 'ff=W6', 'norm1=A8' or 'to_q=W6A4'"
SHOWN_NAMES = 3


@dataclass(frozen=True)
class Edit:
    """New bits of some layers.

    Attributes:
        pattern: regular expression; it stands for every layer whose name it finds.
        weight_bits, activation_bits: 1 to 8, or 16 for unquantized; None leaves them as they are.
    """

    pattern: re.Pattern[str]
    weight_bits: int | None
    activation_bits: int | None


def parse_edit(text: str) -> Edit:
    """Read one ``--set``.

    Raises:
        UsageError: it is none, or the width does not exist.
    """
    match = _EDIT.fullmatch(text)
    if match is None or (match["both"] is None and match["w"] is None and match["a"] is None):
        raise UsageError(f"--set {text[:200]!r} is not PATTERN=BITS", hint=_HINT)
    weight, activation = (match["both"] or match[name] for name in ("w", "a"))
    for bits in (weight, activation):
        if bits is not None and int(bits) not in BIT_WIDTHS:
            raise UsageError(
                f"--set {text[:200]!r}: there is no width {bits}",
                hint=f"1 to 8, or {UNQUANTIZED} for unquantized",
            )
    return Edit(
        compile_pattern(match["pattern"]),
        None if weight is None else int(weight),
        None if activation is None else int(activation),
    )


def read_grid(file: Path) -> BitGrid:
    """Read an edited ``bit_grid.json``.

    Raises:
        UsageError: it is missing, damaged, or says something that a grid cannot say.
    """
    content = read_json_file(file, where=str(file), error=UsageError)
    return validate(BitGrid, content, where=str(file), error=UsageError)


def edited(grid: BitGrid, edits: Sequence[Edit]) -> BitGrid:
    """``grid`` after all edits, in their order.

    A layer whose weight becomes unquantized has unquantized activations as well. One that was
    unquantized gets its new width's activations from the same edit, or from a later one.

    Raises:
        UsageError: an edit finds no layer.
    """
    layers = dict(grid.layers)
    for edit in edits:
        found = [name for name in layers if edit.pattern.search(name)]
        if not found:
            raise UsageError(
                f"pattern {edit.pattern.pattern[:200]!r} finds none of the {len(layers)} layers",
                hint=f"a layer's name looks like {next(iter(layers))}",
            )
        for name in found:
            old = layers[name]
            weight = old.weight_bits if edit.weight_bits is None else edit.weight_bits
            activations = (
                old.activation_bits
                if edit.activation_bits is None
                else (edit.activation_bits,) * len(grid.timesteps)
            )
            if weight == UNQUANTIZED and edit.weight_bits is not None:
                activations = (UNQUANTIZED,) * len(grid.timesteps)
            layers[name] = LayerBits(weight_bits=weight, activation_bits=activations)
    return grid.model_copy(update={"layers": layers})


def check_grid(grid: BitGrid, layers: Sequence[str]) -> None:
    """Make sure that a grid is one of these layers, and can be run.

    Args:
        grid: as edited.
        layers: of the network.

    Raises:
        UsageError: layers are missing or unknown, or one keeps its weight in 16 bits and quantizes
            its activations.
    """
    for what, names in (
        ("lacks", [name for name in layers if name not in grid.layers]),
        ("names unknown", sorted(set(grid.layers) - set(layers))),
    ):
        if names:
            shown = ", ".join(name[:200] for name in names[:SHOWN_NAMES])
            raise UsageError(f"the edited grid {what} layers: {shown} ({len(names)} in all)")
    for name, layer in grid.layers.items():
        if layer.weight_bits == UNQUANTIZED and set(layer.activation_bits) != {UNQUANTIZED}:
            raise UsageError(
                f"layer {name}: its weight stays in 16 bits, so its activations stay as well",
                hint=f"give it weight bits, or {UNQUANTIZED} activation bits",
            )
    if all(layer.weight_bits == UNQUANTIZED for layer in grid.layers.values()):
        raise UsageError("the edited grid leaves no layer to quantize")
