"""Single layers, quantization included, against cuBLAS in bfloat16."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.random_layers import RULE, full_layer
from runtime.backends.triton.timing import as_json, captured, interleaved

SHAPES = ((6144, 1536), (1536, 1536), (1536, 6144))
TOKENS = (4096, 2381, 1024, 333, 77, 2, 1)
BITS = 4
_COLD_BYTES = 128 << 20
"""Inputs of this much in turn, so that none is still in the cache when its turn comes."""


def measure(device: torch.device, *, rounds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """One row per shape and number of tokens, times in microseconds."""
    counts = (TOKENS[0], TOKENS[-1]) if quick else TOKENS
    for out_features, in_features in SHAPES:
        yield from _shape(device, out_features, in_features, counts, rounds)


def _shape(
    device: torch.device, out_features: int, in_features: int, counts: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """The rows of one shape."""
    layer = full_layer("layer", out_features, in_features, device)
    fast = TritonLinear(layer, RULE, "int8").to(device)
    small = TritonLinear(layer, RULE, "packed").to(device)
    weight = torch.randn(out_features, in_features, device=device).mul_(0.02).bfloat16()
    bias = torch.randn(out_features, device=device).bfloat16()
    for tokens in counts:
        sets = max(2, min(16, _COLD_BYTES // (2 * tokens * in_features)))
        inputs = [torch.randn(tokens, in_features, device=device).bfloat16() for _ in range(sets)]
        works = {
            "cuBLAS bf16": _each(inputs, lambda x: F.linear(x, weight, bias)),
            "int8": _each(inputs, lambda x: fast(x, BITS)),
            "packed": _each(inputs, lambda x: small(x, BITS)),
            "prepare, int8": _each(inputs, lambda x: fast.prepare(x, BITS)),
            "prepare, packed": _each(inputs, lambda x: small.prepare(x, BITS)),
        }
        for name, layer_of in (("int8", fast), ("packed", small)):
            prepared = [layer_of.prepare(x, BITS) for x in inputs[:4]]
            works[f"thin and product, {name}"] = _each(prepared, layer_of.apply_to)
            if layer_of.factors is not None:
                values = [one.values for one in prepared]
                works[f"thin, {name}"] = _each(values, layer_of.factors.thin)
        spreads = interleaved(
            {name: captured(work) for name, work in works.items()},
            rounds=rounds,
            calls_each={name: len(work) for name, work in works.items()},
        )
        peer = spreads["cuBLAS bf16"].median
        yield {
            "tokens": tokens,
            "in": in_features,
            "out": out_features,
            "us": as_json(spreads),
            "times_faster": {
                name: round(peer / spread.median, 3)
                for name, spread in spreads.items()
                if name.endswith(("int8", "packed")) and not name.startswith(("thin,", "prepare"))
            },
        }


def _each(inputs: list[Any], work: Callable[[Any], Any]) -> list[Callable[[], Tensor]]:
    """``work`` on every input."""
    return [lambda x=x: work(x) for x in inputs]
