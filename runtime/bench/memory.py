"""Memory that layers hold, whatever they keep it in: parameters, buffers, tuples, own classes."""

from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor

_NO_HOLDERS = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType, str, bytes)


def resident_bytes(layers: Iterable[object]) -> int:
    """Bytes of all tensors that ``layers`` reach through their attributes.

    What several layers share is counted once, and a view counts as all of what it keeps alive.
    Tensors in closures and in caches of modules are not found.
    """
    waiting = list(layers)
    seen: set[int] = set()
    kept: list[object] = []  # an id is a name only while its object lives
    storages: dict[object, int] = {}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _NO_HOLDERS):
            continue
        seen.add(id(thing))
        kept.append(thing)
        if isinstance(thing, Tensor):
            parts = _inner_tensors(thing)
            if parts is None:
                key, size = _storage(thing)
                storages[key] = size
            else:
                waiting += parts
        elif isinstance(thing, Mapping):
            waiting += thing.values()
        elif isinstance(thing, (list, tuple, set, frozenset)):
            waiting += thing
        else:
            waiting += getattr(thing, "__dict__", {}).values()
            for name in getattr(type(thing), "__slots__", ()):
                waiting.append(getattr(thing, name, None))
    return sum(storages.values())


def _inner_tensors(tensor: Tensor) -> list[object] | None:
    """What a tensor is made of that only stands for others, as torchao's do; None for others."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    return None if flatten is None else [getattr(tensor, name) for name in flatten()[0]]


def _storage(tensor: Tensor) -> tuple[object, int]:
    """A name for the tensor's memory, and its size in bytes."""
    if tensor.layout == torch.strided:
        storage = tensor.untyped_storage()
        if storage.data_ptr():
            return (tensor.device, storage.data_ptr()), storage.nbytes()
    # oneDNN's own layouts have no storage that one could ask.
    return id(tensor), tensor.numel() * tensor.element_size()
