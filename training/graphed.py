"""A whole training step as one CUDA graph.

A step of a small network launches some thousands of kernels, each of which a GPU finishes before a
processor has prepared the next. A graph launches them all at once: loss, gradients and the
optimizers' updates.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Step = Callable[..., Tensor]
"""Takes tensors, changes a model's weights, returns the loss."""

WARM_UP = 3
"""Ordinary steps of a shape before its capture: they compile, and make the optimizers' state."""


@dataclass(frozen=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    loss: Tensor


class GraphedStep:
    """Calls a step as it is at first, then captures and replays it; one graph per shape of inputs.

    Args:
        step: reads nothing off the device, and whatever varies between calls, other than random
            numbers and the weights, comes in tensors: those it is given, or others that keep their
            place, as a learning rate.
        stream: all of it runs there: gradients are added on the stream on which a parameter was
            first used, which has to be the captured one.
    """

    def __init__(self, step: Step, stream: torch.cuda.Stream) -> None:
        self._step, self._stream = step, stream
        self._of_shape: dict[tuple[torch.Size, ...], _Captured | int] = {}
        self._refused = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step; the loss is a tensor that later steps leave alone."""
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            loss = self._take(inputs)
        outside.wait_stream(self._stream)
        return loss

    def _take(self, inputs: tuple[Tensor, ...]) -> Tensor:
        key = tuple(x.shape for x in inputs)
        known = self._of_shape.get(key, 0)
        if isinstance(known, int):
            self._of_shape[key] = known + 1
            if known < WARM_UP or self._refused:
                return self._step(*inputs)
            captured = self._capture(inputs)
            if captured is None:
                return self._step(*inputs)
            known = self._of_shape[key] = captured
        torch._foreach_copy_(list(known.inputs), list(inputs))
        known.graph.replay()
        return known.loss.clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Captured | None:
        """The step as a graph, not yet run; None where the device refuses."""
        kept = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread pins memory for the loader's batches meanwhile, which is harmless.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                loss = self._step(*kept)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("no CUDA graphs, every step launches its kernels: %s", reason)
            self._refused = True
            return None
        return _Captured(graph, kept, loss)
