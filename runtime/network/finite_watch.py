"""Values that are not finite: kernels leave a number on the device, somebody has to look at it.

Looking makes the processor wait for the device. Outside a CUDA graph every layer looks at once, so
that the error names the layer, as with every backend; while a graph is being captured nobody can
look, and whoever replays it looks afterwards (`cuda_graphs`). What a layer made of such values is
not finite either, so nothing goes on unseen.
"""

from functools import lru_cache

import torch
from torch import Tensor

_NAMES: list[str] = []
_NUMBERS: dict[str, int] = {}


def number_of(name: str) -> int:
    """What a layer's kernels write: 1, 2, ..., the same for the same name."""
    if name not in _NUMBERS:
        _NAMES.append(name)
        _NUMBERS[name] = len(_NAMES)
    return _NUMBERS[name]


def watch_flag(device: torch.device) -> Tensor:
    """Where kernels on ``device`` write: int32 [1], 0 while all is well."""
    if str(device) == "cuda":
        # A tensor on "cuda" says it is on "cuda:0", and both must mean the same flag.
        device = torch.device("cuda", torch.cuda.current_device())
    return _flag(device)


@lru_cache(maxsize=32)
def _flag(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.zeros(1, dtype=torch.int32, device=device)


def raise_if_seen(device: torch.device) -> None:
    """Look at the flag and lower it.

    Raises:
        ValueError: a layer met a value that is not finite; the message names it.
    """
    flag = watch_flag(device)
    number = int(flag)
    if number:
        flag.zero_()
        raise ValueError(
            f"layer {_NAMES[number - 1]}: a value is not finite, or too large for a float32 scale"
        )


def is_capturing(device: torch.device) -> bool:
    """Whether work on ``device`` is being recorded, not done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
