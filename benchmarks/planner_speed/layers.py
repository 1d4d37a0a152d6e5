"""Which layers are timed: DiT4SR's own shapes, filled with random numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import block_linears, unread_tensors
from artifacts.family import LinearShape

STANDARD_DEVIATION = 0.02


@dataclass(frozen=True)
class Sample:
    """Layers of one shape.

    Attributes:
        shape: of each weight.
        count: how many the network has.
        timed: how many of them are.
    """

    shape: LinearShape
    count: int
    timed: int

    @property
    def millions(self) -> float:
        """Weights of all layers of the shape, in millions."""
        return self.count * self.weights / 1e6

    @property
    def weights(self) -> int:
        """Of one layer."""
        return self.shape.out_features * self.shape.in_features

    def weight(self, index: int) -> Tensor:
        """The weight of one layer, bfloat16 [out, in]; the same for the same index."""
        generator = torch.Generator().manual_seed(index)
        values = torch.randn(tuple(self.shape), generator=generator)
        return (values * STANDARD_DEVIATION).bfloat16()


def network_shapes(config: TransformerConfig) -> Mapping[LinearShape, int]:
    """Shapes of the layers that a pack of the network has, and how many of each."""
    unread = unread_tensors(config, FAMILY.variants[0])
    linears = block_linears(config)
    return Counter(shape for name, shape in linears.items() if f"{name}.weight" not in unread)


def sampled(layers_each: int | None) -> list[Sample]:
    """A sample of the published network, the most frequent shape first; None for every layer."""
    shapes = sorted(
        network_shapes(TransformerConfig()).items(), key=lambda item: (-item[1], item[0])
    )
    return [
        Sample(shape, count, count if layers_each is None else min(count, layers_each))
        for shape, count in shapes
    ]
