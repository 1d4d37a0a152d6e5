"""A network's forward pass as CUDA graphs: one per shape and column of the bit grid.

A step launches some thousands of small kernels; a graph launches them in one go. Bits are constants
of a captured pass, so every column that a sampler visits gets a graph of its own. Graphs share one
memory pool, which is safe because they run one after the other and results are copied out.

A pass is captured when it comes for the second time. The first time it is called as it is, which
compiles its kernels and is a result, too: a pass that never comes again costs nothing extra.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runtime.network.finite_watch import raise_if_seen

logger = logging.getLogger(__name__)

Forward = Callable[..., Tensor]
"""Takes tensors and, last, a column of the bit grid or None."""


def has_graphs(device: torch.device) -> bool:
    """Whether work on ``device`` can be captured and replayed."""
    return device.type == "cuda"


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphedForward:
    """Calls ``forward`` through CUDA graphs; on other devices it just calls it.

    A device that refuses a capture is asked once: from then on ``forward`` is just called.

    Args:
        forward: the pass. It must compute the same kernels for the same shapes and bits, and wait
            for the device nowhere.
        largest_count: passes remembered, captured or not; the one unused for longest makes room.
        warmups: ordinary calls of a pass before it is captured, in which kernels are compiled.
    """

    def __init__(self, forward: Forward, *, largest_count: int = 64, warmups: int = 1) -> None:
        self._forward = forward
        self._largest_count = largest_count
        self._warmups = warmups
        # Under a pass's key its graph, or how often it was called without one.
        self._known: OrderedDict[Hashable, _Captured | int] = OrderedDict()
        self._pool: Any = None
        self._released = False

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
        if self._released or not has_graphs(device):
            return self._forward(*inputs, bits)
        key = (_shapes(inputs), None if bits is None else frozenset(bits.items()))
        known = self._known.pop(key, 0)
        if isinstance(known, int) and known >= self._warmups:
            known = self._capture(inputs, bits) or known
        if isinstance(known, int):
            output = self._forward(*inputs, bits)
            self._remember(key, known + 1)
            return output
        self._remember(key, known)
        for kept, given in zip(known.inputs, inputs, strict=True):
            kept.copy_(given)
        known.graph.replay()
        output = known.output.clone()
        raise_if_seen(device)
        return output

    @property
    def gave_up(self) -> bool:
        """Whether graphs were refused or released, so that passes are just called."""
        return self._released

    def release(self) -> bool:
        """Give back the memory of all graphs and capture no more; whether there were any."""
        had_graphs = any(isinstance(known, _Captured) for known in self._known.values())
        self._known.clear()
        self._pool = None
        self._released = True
        return had_graphs

    def _remember(self, key: Hashable, known: _Captured | int) -> None:
        self._known[key] = known
        if len(self._known) > self._largest_count:
            self._known.popitem(last=False)

    def _capture(
        self, inputs: tuple[Tensor, ...], bits: Mapping[str, int] | None
    ) -> _Captured | None:
        """The pass as a graph; None, and all graphs given up, where the device refuses."""
        # Outside inference mode, so that callers of any mode can write to them; contiguous,
        # whatever the first caller's strides were.
        with torch.inference_mode(False):
            kept = tuple(x.clone(memory_format=torch.contiguous_format) for x in inputs)
        try:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # A capture that fails may leave its own stream as the current one: put ours back.
            with (
                torch.cuda.stream(torch.cuda.current_stream(inputs[0].device)),
                torch.cuda.graph(graph, pool=self._pool),
            ):
                output = self._forward(*kept, bits)
        except RuntimeError as error:  # something waited for the device, or memory ran out
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("no CUDA graphs, every step launches its kernels: %s", reason)
            self.release()
            return None
        return _Captured(graph, kept, output)


def _shapes(inputs: tuple[Tensor, ...]) -> Hashable:
    return tuple((x.shape, x.dtype, x.device) for x in inputs)
