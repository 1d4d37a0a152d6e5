"""A network's forward pass as CUDA graphs: one per shape and column of the bit grid.

A step launches some thousands of small kernels; a graph launches them in one go. Bits are constants
of a captured pass, so every column that a sampler visits gets a graph of its own. Graphs share one
memory pool, which is safe because they run one after the other and results are copied out.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.backends.triton.finite_watch import raise_if_seen

Forward = Callable[..., Tensor]
"""Takes tensors and, last, a column of the bit grid or None."""


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphedForward:
    """Calls ``forward`` through CUDA graphs; on other devices it just calls it.

    Args:
        forward: the pass. It must compute the same kernels for the same shapes and bits, and wait
            for the device nowhere.
        largest_count: graphs kept; the one unused for longest makes room.
        warmups: ordinary calls before a capture, in which kernels are compiled.
    """

    def __init__(self, forward: Forward, *, largest_count: int = 64, warmups: int = 2) -> None:
        self._forward = forward
        self._largest_count = largest_count
        self._warmups = warmups
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._pool: Any = None

    def __call__(self, *inputs: Tensor, bits: Mapping[str, int] | None = None) -> Tensor:
        """One pass.

        Args:
            *inputs: tensors on one device.
            bits: activation bits by layer name.

        Returns:
            The result, a tensor that later calls leave alone.

        Raises:
            ValueError: a layer met a value that is not finite; the message names it.
        """
        device = inputs[0].device
        if device.type != "cuda":
            return self._forward(*inputs, bits)
        key = (_shapes(inputs), None if bits is None else frozenset(bits.items()))
        if key not in self._captured:
            self._captured[key] = self._capture(inputs, bits)
            if len(self._captured) > self._largest_count:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        captured = self._captured[key]
        for kept, given in zip(captured.inputs, inputs, strict=True):
            kept.copy_(given)
        captured.graph.replay()
        output = captured.output.clone()
        raise_if_seen(device)
        return output

    def _capture(self, inputs: tuple[Tensor, ...], bits: Mapping[str, int] | None) -> _Captured:
        kept = tuple(x.clone() for x in inputs)
        device = inputs[0].device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(self._warmups):
                self._forward(*kept, bits)
        torch.cuda.current_stream(device).wait_stream(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = self._forward(*kept, bits)
        return _Captured(graph, kept, output)


def _shapes(inputs: tuple[Tensor, ...]) -> Hashable:
    return tuple((x.shape, x.dtype, x.device) for x in inputs)
