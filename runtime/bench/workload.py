"""What is measured: sizes of pictures, guidance, bits and ranks, as the command line gives them.

Nothing heavy is imported here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.bit_grid import UNQUANTIZED
from schemas.errors import UsageError
from schemas.transformer_config import TransformerConfig

SIZES_PX = (512, 1024)
TEXT_TOKENS = 333
"""Of a prompt: 77 by CLIP and 256 by T5, as Stable Diffusion 3 joins them."""
VAE_FACTOR = 8
"""Image pixels per latent pixel, along one side (Stable Diffusion 3)."""

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
class Streams:
    """Sizes of a block's inputs.

    Attributes:
        grid: token rows and columns of the image; the control stream has as many.
        text_tokens: of the prompt.
        batch: passes computed at once; 2 with guidance.
    """

    grid: tuple[int, int]
    text_tokens: int
    batch: int

    @property
    def image_tokens(self) -> int:
        """Tokens of the image, of one element of the batch."""
        return self.grid[0] * self.grid[1]


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
    text_tokens: int = TEXT_TOKENS

    def streams(self, config: TransformerConfig, size_px: int) -> Streams:
        """The inputs of a block for a picture of ``size_px``, a multiple of a token's side."""
        side = size_px // (VAE_FACTOR * config.patch_size)
        return Streams((side, side), self.text_tokens, self.batch)


@dataclass(frozen=True)
class BlockKind:
    """Blocks of one construction.

    Attributes:
        label: what tables call it.
        index: the block that stands for all of them.
        count: how many the network has.
        dual: with a second attention.
        last: whether ``index`` is the network's last block, which drops its text.
    """

    label: str
    index: int
    count: int
    dual: bool
    last: bool


def block_kinds(config: TransformerConfig) -> list[BlockKind]:
    """Both kinds of block of a network, where it has them.

    The last block counts as one of its kind, although it computes less: it stands for its kind only
    where there is no other.
    """
    last = config.num_layers - 1
    kinds = []
    for label, dual in (("two attentions", True), ("one attention", False)):
        indices = [
            index
            for index in range(config.num_layers)
            if (index in config.dual_attention_layers) == dual
        ]
        if indices:
            kinds.append(BlockKind(label, indices[0], len(indices), dual, indices[0] == last))
    return kinds


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
