"""Single blocks of a network, for whoever measures them without the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from artifacts.family import Config, Shape
from runtime.network.projection import ActivationBits


@dataclass(frozen=True)
class Streams:
    """Sizes of a block's inputs.

    Attributes:
        grid: token rows and columns of the image.
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
class BlockKind:
    """Blocks of one construction.

    Attributes:
        label: what tables call it.
        index: the block that stands for all of them.
        count: how many the network has.
    """

    label: str
    index: int
    count: int


@dataclass(frozen=True, eq=False)
class BlockFamily:
    """The blocks of a family's networks.

    Attributes:
        count: configuration -> number of blocks.
        kinds: configuration -> one entry for every construction.
        prefix: index -> how names of the block's tensors begin in the network.
        build: configuration, variant, index -> the block.
        input_shapes: configuration, streams -> shapes of the block's inputs.
        run: block, inputs, streams, activation bits -> what it returns, or the first part of it.
        left_out: name of a layer of which less is computed than by the published code -> why;
            raises `ValueError` where nothing may be left out.
    """

    count: Callable[[Config], int]
    kinds: Callable[[Config], list[BlockKind]]
    prefix: Callable[[int], str]
    build: Callable[[Config, str, int], nn.Module]
    input_shapes: Callable[[Config, Streams], tuple[Shape, ...]]
    run: Callable[[nn.Module, Sequence[Tensor], Streams, ActivationBits | None], Tensor]
    left_out: Callable[[str], str]
