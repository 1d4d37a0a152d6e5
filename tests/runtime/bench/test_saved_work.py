"""Work that the network leaves out, against a real pass."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears, unread_tensors
from runtime.backends.reference import ReferenceLinear
from runtime.bench.layers import layer_shapes
from runtime.bench.random_layers import random_layer
from runtime.bench.saved_work import published_rows, saved_work
from runtime.bench.workload import (
    Ranks,
    Workload,
)
from runtime.dit4sr.measured_blocks import block_kinds
from runtime.dit4sr.network import DiT4SR
from runtime.network.blocks import Streams
from runtime.network.modulation import Conditioning
from tests.architectures import dit4sr
from tests.runtime.bench.small_network import (
    BITS,
    RANKS,
    STREAMS,
    TINY,
    tiny_config,
)


@st.composite
def networks(draw):
    layers = draw(st.integers(1, 4))
    dual = tuple(sorted(draw(st.sets(st.integers(0, layers - 1)))))
    heads, head = draw(st.sampled_from([(1, 8), (2, 8), (3, 16)]))
    sides = st.integers(1, 3)
    streams = Streams(
        (draw(sides), draw(sides)), draw(st.integers(1, 4)), batch=draw(st.integers(1, 2))
    )
    return tiny_config(layers=layers, dual=dual, heads=heads, head=head), streams


def run_blocks(network, streams):
    """All blocks of a real network, one after the other."""
    width = network.config.hidden_size
    latent = torch.randn(streams.batch, 2 * streams.image_tokens, width)
    text = torch.randn(streams.batch, streams.text_tokens, width)
    conditioning = Conditioning(torch.randn(streams.batch, width))
    with torch.no_grad():
        for block in network.transformer_blocks:
            latent, text = block(latent, text, conditioning, streams.grid, None)
            # What the last block returns is the image half alone.


def observed_products(network, streams):
    """Multiply-accumulates by layer as hooks see them."""
    seen = Counter()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks."):

            def hook(module, inputs, output, name=name):
                seen[name] += output.numel() * module.in_features

            module.register_forward_hook(hook)
    run_blocks(network, streams)
    return seen


@settings(deadline=None, max_examples=8)
@given(networks(), st.sampled_from(["q", "f", "r1"]))
def test_saved_work_is_what_a_real_pass_saves(network_and_streams, variant):
    config, streams = network_and_streams
    saved = saved_work(dit4sr(config, variant), streams)
    seen = observed_products(DiT4SR(config, variant), streams)
    assert saved.computed == sum(seen.values())
    assert saved.calls == len(seen)  # every layer is called once
    assert saved.published - saved.computed == sum(saved.dropped.values())
    assert all(count > 0 for count in saved.dropped.values())
    unread = {name.rpartition(".")[0] for name in unread_tensors(config, variant)}
    layers = block_linears(config)
    assert saved.unread_layers == len(unread & set(layers))
    assert not unread & set(seen)

    # The same from the streams' lengths, kind of layer by kind of layer.
    n, m, width = streams.image_tokens, streams.text_tokens, config.hidden_size
    square = streams.batch * width * width
    duals = len(config.dual_attention_layers)
    attentions = config.num_layers + duals
    keys = 0 if variant == "r1" else 2 * n * square * attentions
    last_block = m * square + 4 * n * square
    assert saved.published - saved.computed == keys + last_block


@settings(deadline=None, max_examples=5)
@given(networks())
def test_shared_preparations_are_those_of_a_real_pass(network_and_streams):
    config, streams = network_and_streams
    network = DiT4SR(config)
    generator = torch.Generator().manual_seed(0)
    prepared, separate = [], []

    class Watched(ReferenceLinear):
        def prepare(self, x, bits):
            prepared.append(x.numel())
            return super().prepare(x, bits)

        def apply_to(self, prepared):
            separate.append(prepared.values.numel())
            return super().apply_to(prepared)

    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks."):
            sizes = (module.out_features, module.in_features)
            record = random_layer(
                name, *sizes, weight_bits=4, ranks=Ranks(0, 0), generator=generator
            )
            network.set_submodule(name, Watched(record, "gaussian"))
    run_blocks(network, streams)
    saved = saved_work(dit4sr(config, "q"), streams)
    assert (saved.preparations, saved.shared_values) == (len(prepared), sum(prepared))
    assert (saved.calls, saved.separate_values) == (len(separate), sum(separate))
    assert saved.preparations < saved.calls
    assert saved.shared_values < saved.separate_values


def test_the_second_attention_publishes_no_text():
    rows = published_rows(dit4sr(TINY), STREAMS)
    assert rows["transformer_blocks.0.attn.add_q_proj"] == 10
    assert rows["transformer_blocks.0.attn2.add_q_proj"] == 0
    assert rows["transformer_blocks.0.attn2.to_q"] == 24
    assert rows["transformer_blocks.0.norm1.linear"] == 2


def test_layer_shapes_are_the_blocks_calls():
    kinds = block_kinds(TransformerConfig())
    streams = Workload((512,), 1, BITS, RANKS, 333).streams(dit4sr(TransformerConfig()), 512)
    shapes = layer_shapes(dit4sr(TransformerConfig()), streams, kinds)
    found = {(shape.rows, shape.in_features, shape.out_features): n for shape, n in shapes.items()}
    assert found[2048, 1536, 6144] == 24
    assert found[2048, 1536, 1536] == 2 * (13 + 24)  # queries and values of every attention
    assert found[333, 6144, 1536] == 24
    assert found[1, 1536, 13824] == 13
    assert next(iter(shapes)).operations == 2 * 2048 * 1536 * 6144
