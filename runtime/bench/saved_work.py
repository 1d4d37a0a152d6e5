"""What a step saves before any kernel runs: layers not applied, inputs not prepared again.

Measured against the network as it is published, in which every layer that is called reads all
tokens of its stream.
"""

from collections import Counter
from dataclasses import dataclass

from artifacts.family import Architecture
from runtime.bench.counting import count_block
from runtime.network.blocks import Streams
from runtime.network.family import block_family


@dataclass(frozen=True)
class SavedWork:
    """One forward pass of all blocks.

    Attributes:
        published: multiply-accumulates of linear layers as the published code computes them.
        computed: those that are computed here, by whatever backend.
        dropped: the difference, by what it was for.
        unread_layers: layers that exist and are never applied.
        unread_weights: their weights, in numbers.
        calls: of linear layers; each would prepare its input by itself.
        preparations: inputs that are prepared instead.
        separate_values: numbers that ``calls`` would prepare.
        shared_values: numbers that are prepared.
    """

    published: int
    computed: int
    dropped: dict[str, int]
    unread_layers: int
    unread_weights: int
    calls: int
    preparations: int
    separate_values: int
    shared_values: int


def published_rows(architecture: Architecture, streams: Streams) -> dict[str, int]:
    """Tokens of the whole batch that the published code applies every layer to, by name.

    Some layers exist and are not called.
    """
    family = architecture.family
    tokens = family.streams(streams.image_tokens, streams.text_tokens)
    return {
        name: streams.batch * family.tokens_through(name, tokens)
        for name in architecture.quantizable
    }


def saved_work(architecture: Architecture, streams: Streams) -> SavedWork:
    """Count the blocks of a network, all of them."""
    blocks = block_family(architecture.family)
    shapes, rows = architecture.quantizable, published_rows(architecture, streams)
    computed: Counter[str] = Counter()
    calls = preparations = separate = shared = 0
    for index in range(blocks.count(architecture.config)):
        count = count_block(architecture, index, streams)
        for call in count.calls:
            computed[blocks.prefix(index) + call.name] += call.products
        calls += len(count.calls)
        preparations += len(count.prepared)
        separate += sum(call.values for call in count.calls)
        shared += sum(count.prepared)

    published = {
        name: rows[name] * shape.out_features * shape.in_features for name, shape in shapes.items()
    }
    dropped: Counter[str] = Counter()
    for name, products in published.items():
        if products != computed[name]:
            dropped[blocks.left_out(name)] += products - computed[name]
    unread = [shape for name, shape in shapes.items() if name not in computed]
    return SavedWork(
        published=sum(published.values()),
        computed=computed.total(),
        dropped=dict(dropped),
        unread_layers=len(unread),
        unread_weights=sum(shape.out_features * shape.in_features for shape in unread),
        calls=calls,
        preparations=preparations,
        separate_values=separate,
        shared_values=shared,
    )
