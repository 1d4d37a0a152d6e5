"""Memory that passes over tokens use again and again.

A fresh tensor of a megabyte costs more than the pass that fills it: the system hands out its pages
one fault at a time, and takes them back when the tensor goes.
"""

import threading

import torch
from torch import Tensor

_kept = threading.local()


def scratch(values: int) -> tuple[Tensor, Tensor]:
    """Two float32 vectors of ``values`` numbers, the caller's until this thread asks again.

    They are kept for the life of the thread; a larger request replaces them.
    """
    pair: tuple[Tensor, Tensor] | None = getattr(_kept, "pair", None)
    if pair is None or len(pair[0]) < values:
        with torch.inference_mode(False):  # what is kept must serve callers of any mode
            pair = torch.empty(values), torch.empty(values)
        _kept.pair = pair
    return pair[0][:values], pair[1][:values]
