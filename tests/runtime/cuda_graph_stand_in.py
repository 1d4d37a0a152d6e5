"""CUDA graphs on the CPU: torch's operations are recorded, and a replay does them once more.

As on a GPU, a replay calls no Python of the pass, reads and writes the tensors of the capture, and
reading a number off a tensor inside a capture is an error.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runtime.network import cuda_graphs, graphed_network


class StandInGraph(TorchDispatchMode):
    """In the place of ``torch.cuda.CUDAGraph``."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        self.steps.append((operation, args, kwargs, result))
        return result

    @torch.inference_mode()  # a mode of the caller's is nothing to a replay
    def replay(self):
        for operation, args, kwargs, result in self.steps:
            again = operation(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                is_new = isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr()
                if is_new:  # neither a view nor the operand itself
                    kept.copy_(new)


class StandInStream:
    """In the place of ``torch.cuda.Stream``: all work is in order anyway."""

    def wait_stream(self, other):
        pass


@contextmanager
def _capturing(graph, **_options):
    with graph:
        yield


def install(monkeypatch):
    """Let every device capture passes in this way."""
    for module in (cuda_graphs, graphed_network):
        monkeypatch.setattr(module, "has_graphs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandInGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capturing)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", StandInStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: StandInStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
