"""What a step saves before any kernel runs: layers not applied, inputs not prepared again.

Measured against the network as it is published, in which every layer that is called reads all
tokens of its stream.
"""

from collections import Counter
from dataclasses import dataclass

from artifacts.dit4sr.layout import block_linears
from runtime.bench.counting import count_block
from runtime.bench.workload import Streams
from schemas.transformer_config import TransformerConfig, Variant

CONTROL_KEYS = "keys of the control stream, which the published code overwrites"
TEXT_QUERIES = "text queries of the last block, whose text nothing reads"
CONTROL_OUTPUT = "control half of the last feed-forward's second layer, which nothing reads"


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


def published_rows(config: TransformerConfig, streams: Streams) -> dict[str, int]:
    """Tokens of the whole batch that the published code applies every block linear to, by name.

    The second attention sees no text: its text layers exist and are not called.
    """
    return {name: streams.batch * _tokens(name, streams) for name in block_linears(config)}


def saved_work(config: TransformerConfig, variant: Variant, streams: Streams) -> SavedWork:
    """Count the blocks of a network, all of them."""
    shapes, rows = block_linears(config), published_rows(config, streams)
    computed: Counter[str] = Counter()
    calls = preparations = separate = shared = 0
    for index in range(config.num_layers):
        count = count_block(
            config,
            variant,
            streams,
            dual=index in config.dual_attention_layers,
            last=index == config.num_layers - 1,
        )
        for call in count.calls:
            computed[f"transformer_blocks.{index}.{call.name}"] += call.products
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
            dropped[_reason(name)] += products - computed[name]
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


def _tokens(name: str, streams: Streams) -> int:
    """Tokens of one element of the batch through the layer ``name`` of the published code."""
    _, _, module, *rest = name.split(".")  # transformer_blocks, index, module, layer...
    layer = rest[0]
    if module in ("norm1", "norm1_context"):
        return 1  # modulation reads the conditioning vector
    if layer.startswith("add_") or layer == "to_add_out":
        return 0 if module == "attn2" else streams.text_tokens
    if module == "ff_context":
        return streams.text_tokens
    if layer.endswith("_control") or layer == "to_out":
        return streams.image_tokens
    return 2 * streams.image_tokens


def _reason(name: str) -> str:
    """Why less is computed in a layer than published.

    Raises:
        ValueError: nothing is known that could be left out there.
    """
    layer = name.split(".", 3)[3]
    if layer in ("to_k", "to_k_control"):
        return CONTROL_KEYS
    if layer == "add_q_proj":
        return TEXT_QUERIES
    if layer == "net.2":
        return CONTROL_OUTPUT
    raise ValueError(f"layer {name} computes something else than the published network")
