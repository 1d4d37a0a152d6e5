"""What a block asks of its linear layers, found out by running it on tensors without content."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from artifacts.family import Architecture
from runtime.network.blocks import Streams
from runtime.network.family import block_family
from runtime.network.projection import PreparedInput, QuantizableLinear


@dataclass(frozen=True)
class LayerCall:
    """One call of a linear layer.

    Attributes:
        name: of the layer within its block.
        rows: tokens that it is applied to, of the whole batch.
        in_features, out_features: its sizes.
    """

    name: str
    rows: int
    in_features: int
    out_features: int

    @property
    def products(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.in_features * self.out_features

    @property
    def values(self) -> int:
        """Numbers that go in."""
        return self.rows * self.in_features


@dataclass
class BlockCount:
    """One forward pass of one block.

    Attributes:
        calls: of linear layers, in their order.
        prepared: numbers of every input that was prepared, in their order.
    """

    calls: list[LayerCall] = field(default_factory=list)
    prepared: list[int] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(call.products for call in self.calls)


class _CountingLinear(QuantizableLinear):
    """Writes down what it is asked for, and returns a tensor of the right shape.

    Layers of one input size share preparations, as in a pack: it has one set of signs per size.
    """

    def __init__(self, name: str, layer: nn.Linear, count: BlockCount) -> None:
        super().__init__()
        self.name = name
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._count = count

    def share_key(self, bits: int) -> Hashable:
        return (self.in_features, bits)

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        self._count.prepared.append(x.numel())
        return PreparedInput(x, None, None, bits, x.dtype)

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        x = prepared.values
        rows = x.numel() // self.in_features
        self._count.calls.append(LayerCall(self.name, rows, self.in_features, self.out_features))
        return x.new_empty((*x.shape[:-1], self.out_features))


def count_block(architecture: Architecture, index: int, streams: Streams) -> BlockCount:
    """Run one block of a network and write down what its layers do; allocates nothing."""
    blocks, config = block_family(architecture.family), architecture.config
    count = BlockCount()
    with torch.device("meta"), torch.no_grad():
        block = blocks.build(config, architecture.variant, index)
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                block.set_submodule(name, _CountingLinear(name, module, count))
        inputs = [torch.empty(shape) for shape in blocks.input_shapes(config, streams)]
        blocks.run(block, inputs, streams, None)
    return count
