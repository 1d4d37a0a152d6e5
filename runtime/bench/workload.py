"""What is measured: sizes of pictures, guidance, bits and ranks, as the command line gives them.

Nothing heavy is imported here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError

if TYPE_CHECKING:  # they bring torch
    from artifacts.family import Architecture
    from runtime.network.blocks import Streams

SIZES_PX = (512, 1024)

_BITS = re.compile(r"w([0-9]{1,2})a([0-9]{1,2})", re.IGNORECASE)
_RANKS = re.compile(r"([0-9]{1,4})\+([0-9]{1,4})")


@dataclass(frozen=True)
class BitWidths:
    """Bits of every quantized layer.

    Attributes:
        weight: 1 ... 8.
        activation: 1 ... 8, or 16 for unquantized activations.
    """

    weight: int
    activation: int

    def __str__(self) -> str:
        return f"W{self.weight}A{self.activation}"


@dataclass(frozen=True)
class Ranks:
    """Ranks of the factor branches; 0 goes without one."""

    global_rank: int
    local_rank: int

    def __str__(self) -> str:
        return f"{self.global_rank}+{self.local_rank}"


@dataclass(frozen=True)
class Workload:
    """What every candidate computes.

    Attributes:
        sizes_px: sides of the square pictures.
        batch: 1, or 2 for guidance.
        bits: of the quantized candidates.
        ranks: of their factors.
        text_tokens: of the prompt.
    """

    sizes_px: tuple[int, ...]
    batch: int
    bits: BitWidths
    ranks: Ranks
    text_tokens: int

    def streams(self, architecture: "Architecture", size_px: int) -> "Streams":
        """The inputs of a block for a picture of ``size_px``, a multiple of a token's side."""
        patch_size = architecture.latent_size.patch_size
        side = size_px // (architecture.family.vae_factor * patch_size)
        from runtime.network.blocks import Streams  # noqa: PLC0415

        return Streams((side, side), self.text_tokens, self.batch)


def parse_sizes(given: Sequence[int]) -> tuple[int, ...]:
    """Check ``--size``, and drop what was given twice.

    Raises:
        UsageError: a size that is none of `SIZES_PX`.
    """
    for size in given:
        if size not in SIZES_PX:
            raise UsageError(f"--size {size}: one of {', '.join(map(str, SIZES_PX))}")
    return tuple(dict.fromkeys(given))


def parse_bits(text: str) -> BitWidths:
    """Read ``W4A4``, in capitals or not.

    Raises:
        UsageError: it is no such text, or layers cannot have these bits.
    """
    match = _BITS.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--bits {text}: weight and activation bits are needed", hint="as in W4A4 or W4A8"
        )
    bits = BitWidths(int(match[1]), int(match[2]))
    if not 1 <= bits.weight <= 8:
        raise UsageError(f"--bits {text}: weights take 1 to 8 bits")
    if not 1 <= bits.activation <= 8 and bits.activation != UNQUANTIZED:
        raise UsageError(f"--bits {text}: activations take 1 to 8 bits, or {UNQUANTIZED}")
    return bits


def parse_ranks(text: str) -> Ranks:
    """Read ``32+8``: rank of the global factors, budget of the local ones.

    Raises:
        UsageError: it is no such text.
    """
    match = _RANKS.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--ranks {text}: global and local rank are needed",
            hint="as in 32+8; 0 goes without",
        )
    return Ranks(int(match[1]), int(match[2]))
