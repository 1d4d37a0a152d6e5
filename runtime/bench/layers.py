"""Single layers: the shapes that a network's blocks apply, each by every candidate."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from artifacts.family import Architecture
from runtime.bench.candidates import Candidate, attempt
from runtime.bench.counting import count_block
from runtime.bench.timing import Spread, Timer, Work, captured, interleaved, repeated
from runtime.bench.workload import BitWidths, Ranks
from runtime.network.blocks import BlockKind, Streams
from runtime.network.projection import QuantizableLinear


@dataclass(frozen=True, order=True)
class LayerShape:
    """A linear layer and the tokens it is applied to, those of the whole batch."""

    rows: int
    in_features: int
    out_features: int

    @property
    def operations(self) -> int:
        """Two per multiply-accumulate."""
        return 2 * self.rows * self.in_features * self.out_features


@dataclass(frozen=True)
class LayerTime:
    """One candidate on one shape.

    Attributes:
        whole: of the layer, its input's preparation included.
        preparation: of that alone; None for layers without one.
    """

    whole: Spread
    preparation: Spread | None


@dataclass(frozen=True)
class LayerResult:
    """All candidates on one shape.

    Attributes:
        shape: the shape.
        calls: how often a pass through all blocks applies it.
        times: by candidate.
        unavailable: why others have none.
    """

    shape: LayerShape
    calls: int
    times: dict[str, LayerTime]
    unavailable: dict[str, str]


def layer_shapes(
    architecture: Architecture, streams: Streams, kinds: Sequence[BlockKind]
) -> dict[LayerShape, int]:
    """Every distinct shape, largest work first, and how often a pass through all blocks needs it.

    All blocks of a kind count as the one that stands for them.
    """
    counts: Counter[LayerShape] = Counter()
    for kind in kinds:
        block = count_block(architecture, kind.index, streams)
        for call in block.calls:
            counts[LayerShape(call.rows, call.in_features, call.out_features)] += kind.count
    return dict(sorted(counts.items(), key=lambda item: (-item[0].operations, item[0])))


def measure_layer(
    shape: LayerShape,
    calls: int,
    candidates: Sequence[Candidate],
    *,
    device: torch.device,
    bits: BitWidths,
    ranks: Ranks,
    rounds: int,
    timer: Timer,
    calls_each: int,
    after_round: Callable[[int], None],
) -> LayerResult:
    """Time one shape with every candidate that can run.

    Args:
        shape: the layer's sizes.
        calls: as in `LayerResult`.
        candidates: all that take part, those that cannot run here too.
        device: where.
        bits: of quantized layers.
        ranks: of their factors.
        rounds: times per candidate.
        timer: of one run.
        calls_each: calls of a run: one CUDA graph of so many where a candidate has a graphed mode.
        after_round: told how many rounds are over.
    """
    x = torch.randn(shape.rows, shape.in_features, device=device)
    works: dict[str, Work] = {}
    unavailable: dict[str, str] = {}
    for candidate in candidates:
        if candidate.missing is not None:
            unavailable[candidate.name] = candidate.missing
            continue

        def warm_works(candidate: Candidate = candidate) -> dict[str, Work]:
            sizes = (shape.out_features, shape.in_features)
            with torch.no_grad():  # peers make parameters, which inference mode would mark
                layer = candidate.make_layer(*sizes, device, bits, ranks)
            found = _works(candidate.name, layer, x.to(candidate.dtype), bits.activation)
            several = captured if candidate.has_graphed_layers(bits) else repeated
            with torch.inference_mode():
                for work in found.values():
                    work()
                return {name: several(work, calls_each) for name, work in found.items()}

        found = attempt(warm_works)
        if isinstance(found, str):
            unavailable[candidate.name] = found
        else:
            works |= found
    with torch.inference_mode():
        spreads = interleaved(
            works, rounds=rounds, timer=timer, calls=calls_each, after_round=after_round
        )
    times = {
        candidate.name: LayerTime(spreads[candidate.name], spreads.get(_preparing(candidate.name)))
        for candidate in candidates
        if candidate.name in spreads
    }
    return LayerResult(shape, calls, times, unavailable)


def _works(name: str, layer: nn.Module, x: Tensor, bits: int) -> dict[str, Work]:
    if isinstance(layer, QuantizableLinear):
        return {name: partial(layer, x, bits), _preparing(name): partial(layer.prepare, x, bits)}
    return {name: partial(layer, x)}


def _preparing(name: str) -> str:
    return f"{name}: preparation"
