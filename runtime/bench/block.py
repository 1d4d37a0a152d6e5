"""One transformer block with its inputs, filled by a candidate's layers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from artifacts.family import Architecture
from runtime.bench.random_layers import WEIGHT_SIZE
from runtime.network.blocks import BlockKind, Streams
from runtime.network.cuda_graphs import GraphedForward
from runtime.network.family import block_family
from runtime.network.projection import ActivationBits, QuantizableLinear
from runtime.network.unread import Unread

_GRAPH_CALLS = 3
"""Calls after which a graph exists: the first ones compile kernels."""

Convert = Callable[[str, nn.Linear], nn.Module]
"""From a layer's name and the plain layer, without content, to what stands in its place."""


class BenchBlock:
    """A block of random weights.

    Args:
        architecture: the network that it is a block of.
        kind: which of its blocks.
        streams: sizes of the inputs.
        device: where it runs.
        dtype: of the inputs and of everything that is not quantized.
        convert: makes quantized layers; None leaves all layers plain.
        activation_bits: of quantized layers.

    Attributes:
        block: the module.
        inputs: random inputs.
        layer_names: linear layers that a forward pass applies, by their names in the block.
        weights: how many weights these have.
    """

    def __init__(
        self,
        architecture: Architecture,
        kind: BlockKind,
        streams: Streams,
        device: torch.device,
        dtype: torch.dtype,
        *,
        convert: Convert | None = None,
        activation_bits: int = 4,
    ) -> None:
        blocks, config = block_family(architecture.family), architecture.config
        with torch.device("meta"):
            self.block = blocks.build(config, architecture.variant, kind.index)
        prefix = blocks.prefix(kind.index)
        unread = {
            name.removeprefix(prefix).rpartition(".")[0]
            for name in architecture.unread_tensors
            if name.startswith(prefix)
        }
        for name in sorted(unread):  # as in a pack: no candidate holds what nobody reads
            self.block.set_submodule(name, Unread(name))
        layers = {
            name: module
            for name, module in self.block.named_modules()
            if isinstance(module, nn.Linear)
        }
        self.layer_names = list(layers)
        self.weights = sum(layer.in_features * layer.out_features for layer in layers.values())
        if convert is not None:
            for name, layer in layers.items():
                self.block.set_submodule(name, convert(name, layer).to(device))
        generator = torch.Generator(device).manual_seed(0)
        state = {
            name: random_weight(parameter.shape, device, dtype, generator)
            for name, parameter in self.block.named_parameters()
        }
        self.block.load_state_dict(state, assign=True)
        self.block.eval().requires_grad_(False)
        self.inputs = [
            torch.randn(shape, generator=generator, device=device).to(dtype)
            for shape in blocks.input_shapes(config, streams)
        ]
        self._run = blocks.run
        self._streams = streams
        self._bits = activation_bits

    @property
    def layers(self) -> list[nn.Module]:
        """The linear layers as they are now, whatever they were converted to."""
        return [self.block.get_submodule(name) for name in self.layer_names]

    @property
    def column(self) -> ActivationBits | None:
        """Activation bits of the quantized layers by name; None without any."""
        names = [layer.name for layer in self.layers if isinstance(layer, QuantizableLinear)]
        return dict.fromkeys(names, self._bits) if names else None

    def work(self, *, compiled: bool = False, graphed: bool = False) -> Callable[[], object]:
        """One forward pass, to be called again and again, warm.

        Args:
            compiled: through ``torch.compile``.
            graphed: through a CUDA graph, inputs and result copied.

        Raises:
            RuntimeError: a graph is asked for and the device refuses it; whatever compiling or
                running raises.
        """
        forward: nn.Module = self.block
        if compiled:
            forward = torch.compile(self.block, dynamic=False)  # type: ignore[assignment]
        run_block, streams, column = self._run, self._streams, self.column

        def run(*values: Any) -> Tensor:
            *inputs, bits = values  # as a graph calls it
            return run_block(forward, inputs, streams, bits)

        if not graphed:
            work = partial(run, *self.inputs, column)
            work()
            return work
        graph = GraphedForward(run)
        for _ in range(_GRAPH_CALLS):
            graph(*self.inputs, bits=column)
        if graph.gave_up:
            raise RuntimeError("the device refuses to capture it as a graph")
        return partial(graph, *self.inputs, bits=column)


def random_weight(
    shape: torch.Size, device: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Uniform values of a weight's usual size; a normal distribution takes longer to draw."""
    side = WEIGHT_SIZE * math.sqrt(3)
    values = torch.empty(shape, device=device)
    return values.uniform_(-side, side, generator=generator).to(dtype)
