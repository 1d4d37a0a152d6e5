"""The command `qrun bench` and its parts, on networks a thousandth of DiT4SR's size."""

import io
import json
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from artifacts.codec.block_shapes import expected_block
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears, unread_tensors
from runtime.backends import BACKENDS
from runtime.backends.cpu.int8_weight import inexact_reason
from runtime.backends.cpu.kernels import native_kernels
from runtime.backends.cpu.linear import CpuLinear
from runtime.backends.reference import ReferenceLinear
from runtime.backends.triton.linear import TritonLinear
from runtime.bench import layers, peers
from runtime.bench.block import BenchBlock
from runtime.bench.candidates import EAGER, GRAPH, Candidate, all_candidates, attempt
from runtime.bench.layers import LayerShape, layer_shapes, measure_layer
from runtime.bench.memory import resident_bytes
from runtime.bench.parts import PARTS, REST, Clock, clocked, part_times
from runtime.bench.random_layers import WEIGHT_SIZE, random_layer
from runtime.bench.report import render, to_json
from runtime.bench.run import BenchListener, Settings, count_steps, measure
from runtime.bench.saved_work import published_rows, saved_work
from runtime.bench.timing import Spread, captured, interleaved, repeated, timer_for
from runtime.bench.workload import (
    BitWidths,
    Ranks,
    Workload,
    parse_bits,
    parse_ranks,
    parse_sizes,
)
from runtime.cli import app as cli
from runtime.cli import bench as cli_bench
from runtime.dit4sr.measured_blocks import block_kinds
from runtime.dit4sr.network import DiT4SR
from runtime.network.blocks import Streams
from runtime.network.modulation import Conditioning
from schemas.errors import UsageError
from tests.architectures import dit4sr
from tests.runtime.cuda_graph_stand_in import install

CPU = torch.device("cpu")
BITS, RANKS = BitWidths(4, 4), Ranks(4, 2)
runner = CliRunner()

needs_onednn = pytest.mark.skipif(inexact_reason() is not None, reason=str(inexact_reason()))
needs_cpu_backend = pytest.mark.skipif(
    BACKENDS["cpu"].missing(CPU) is not None, reason=str(BACKENDS["cpu"].missing(CPU))
)


def tiny_config(*, layers=3, dual=(0,), heads=2, head=24):
    return TransformerConfig(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=head,
        joint_attention_dim=24,
        caption_projection_dim=heads * head,
        pooled_projection_dim=20,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
    )


TINY = tiny_config()
STREAMS = Streams(grid=(2, 3), text_tokens=5, batch=2)


def tiny_settings(**changes):
    workload = Workload((64,), 1, BITS, RANKS, text_tokens=5)
    standard = {"rounds": 2, "compiling": False, "peers": False, "layers": False}
    return Settings(workload=workload, device=CPU, **(standard | changes))


# What is measured


@pytest.mark.parametrize("text", ["W4A4", "w3a16", "W8A8"])
def test_bits_are_read_as_they_are_written(text):
    assert str(parse_bits(text)) == text.upper()


@pytest.mark.parametrize("text", ["", "4", "W4", "W3.5A4", "W0A4", "W9A4", "W4A12", "W4A0"])
def test_bits_that_no_layer_has(text):
    with pytest.raises(UsageError):
        parse_bits(text)


def test_ranks_and_sizes():
    assert str(parse_ranks("32+8")) == "32+8"
    assert parse_sizes([1024, 512, 1024]) == (1024, 512)
    for wrong in ("32", "32+", "-1+2", "a+b"):
        with pytest.raises(UsageError):
            parse_ranks(wrong)
    with pytest.raises(UsageError, match="512, 1024"):
        parse_sizes([500])


def test_the_published_network_has_13_blocks_of_one_kind_and_11_of_the_other():
    kinds = block_kinds(TransformerConfig())
    assert [(kind.label, kind.index, kind.count) for kind in kinds] == [
        ("two attentions", 0, 13),
        ("one attention", 13, 11),
    ]
    workload = Workload((512, 1024), 2, BITS, Ranks(32, 8), 333)
    tokens = [workload.streams(dit4sr(TransformerConfig()), px).image_tokens for px in (512, 1024)]
    assert tokens == [1024, 4096]


def test_a_network_with_one_kind_of_block():
    kinds = block_kinds(tiny_config(layers=1, dual=()))
    assert [(kind.label, kind.index, kind.count) for kind in kinds] == [("one attention", 0, 1)]


# Random layers


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_random_weights_have_the_usual_size(bits):
    generator = torch.Generator().manual_seed(0)
    layer = random_layer("a", 96, 192, weight_bits=bits, ranks=Ranks(0, 0), generator=generator)
    assert layer.global_rank == 0
    assert layer.local_block is None
    assert float(layer.residual().square().mean().sqrt()) == pytest.approx(WEIGHT_SIZE, rel=0.02)
    whole = random_layer("a", 96, 192, weight_bits=bits, ranks=RANKS, generator=generator)
    assert whole.global_rank == 4
    assert whole.local_block == expected_block(96, 192, 2)
    # Residual and both branches are alike in size, so nothing grows from layer to layer.
    assert float(whole.low_rank().square().mean().sqrt()) == pytest.approx(0.028, rel=0.4)


# Timing


def test_candidates_take_turns():
    calls, ticks = [], iter(range(100))

    def timer(work):
        work()
        return float(next(ticks))

    rounds = []
    spreads = interleaved(
        {name: repeated(lambda name=name: calls.append(name), 2) for name in "abc"},
        rounds=3,
        timer=timer,
        calls=2,
        after_round=rounds.append,
    )
    assert "".join(calls) == "aabbcc" * 3
    assert rounds == [1, 2, 3]
    assert list(spreads) == list("abc")
    assert spreads["a"] == Spread(median=1.5, lowest=0.0, highest=3.0)  # 0, 3, 6 of two calls each
    assert spreads["c"] == Spread(median=2.5, lowest=1.0, highest=4.0)


def test_a_captured_run_calls_no_python(monkeypatch):
    install(monkeypatch)
    total, calls = torch.zeros(1), []

    def work():
        calls.append(1)
        total.add_(1)

    run = captured(work, 3)
    assert len(calls) == 2 + 3  # to warm up, and to capture
    before = float(total)
    run()
    assert float(total) == before + 3
    assert len(calls) == 5
    assert run.captured is work  # and so lives what the graph reads


def test_layers_are_captured_where_blocks_are(monkeypatch):
    """And where no activation stays unquantized; others are called again and again."""
    install(monkeypatch)
    ways = []
    monkeypatch.setattr(layers, "captured", lambda work, n: ways.append(("captured", n)) or work)
    monkeypatch.setattr(layers, "repeated", lambda work, n: ways.append(("repeated", n)) or work)
    plain = Candidate("plain", "torch", torch.float32, (EAGER, GRAPH))
    reference = Candidate("a", "backend", torch.float32, (EAGER,), backend="reference")
    graphed = replace(reference, name="b", modes=(EAGER, GRAPH))
    shape = LayerShape(6, 48, 32)
    for bits in (BITS, BitWidths(4, 16)):
        result = measure_layer(
            shape,
            1,
            [plain, reference, graphed],
            device=CPU,
            bits=bits,
            ranks=RANKS,
            rounds=1,
            timer=timer_for(CPU, processor_time=False),
            calls_each=2,
            after_round=lambda done: None,
        )
        assert set(result.times) == {"plain", "a", "b"}
        assert result.times["b"].preparation is not None
    once, twice = ("captured", 2), ("repeated", 2)
    assert ways == [once, twice, twice, once, once, once, twice, twice, twice, twice]


@pytest.mark.parametrize(
    ("seconds", "median"), [([3.0], 3.0), ([5.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 9.0], 3.0)]
)
def test_median_and_spread(seconds, median):
    assert Spread.of(seconds) == Spread(median, min(seconds), max(seconds))


def test_both_clocks_of_the_processor_see_work():
    def work():
        return sum(range(200_000))

    assert timer_for(CPU, processor_time=True)(work) > 0
    assert timer_for(CPU, processor_time=False)(work) > 0


# Saved work


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


# Memory


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Slotted:
    __slots__ = ("kept",)


def test_tensors_are_found_wherever_a_layer_keeps_them():
    shared = torch.zeros(100)  # 400 bytes
    layer = nn.Linear(4, 2)  # 40 bytes
    layer.pair = Pair(torch.zeros(3, dtype=torch.int8), shared)  # 3
    layer.by_dtype = {torch.float32: [torch.zeros(2, dtype=torch.bfloat16)]}  # 4
    layer.slotted = Slotted()
    layer.slotted.kept = shared[:10]  # a view: nothing new
    other = nn.Module()
    other.register_buffer("again", shared)
    layer.itself = [layer]
    assert resident_bytes([layer, other]) == 40 + 400 + 3 + 4
    assert resident_bytes([nn.Identity()]) == 0


def test_a_view_counts_as_what_it_keeps_alive():
    holder = SimpleNamespace(part=torch.zeros(1000)[5:6])
    assert resident_bytes([holder]) == 4000


def test_a_tensor_that_stands_for_others_counts_as_those():
    class Standing(torch.Tensor):
        def __tensor_flatten__(self):
            return ["codes", "scale"], None

    standing = torch.zeros(1000).as_subclass(Standing)
    standing.codes, standing.scale = torch.zeros(10, dtype=torch.int8), torch.zeros(2)
    assert resident_bytes([standing]) == 18


def weight(bits=4):
    generator = torch.Generator().manual_seed(1)
    return random_layer("a", 96, 192, weight_bits=bits, ranks=RANKS, generator=generator)


@needs_onednn
def test_memory_of_the_cpu_backend_grows_with_what_it_makes_on_the_way():
    layer = CpuLinear(weight(), "gaussian")
    before = resident_bytes([layer])
    assert before >= 96 * 192  # one byte per weight
    layer(torch.randn(3, 192), 4)
    assert resident_bytes([layer]) > before


@pytest.mark.parametrize("residency", ["int8", "packed"])
def test_memory_of_triton_layers_is_at_least_what_they_say(residency):
    layer = TritonLinear(weight(), "gaussian", residency)
    assert layer.resident_bytes <= resident_bytes([layer]) <= layer.resident_bytes + 4 * 192


def test_memory_of_the_reference_is_its_buffers():
    layer = ReferenceLinear(weight(), "gaussian")
    assert resident_bytes([layer]) == sum(buffer.nbytes for buffer in layer.buffers())


# Where the time goes


def test_a_clock_takes_off_what_is_inside():
    now = iter([0.0, 1.0, 4.0, 6.0])
    clock = Clock(lambda: next(now))
    inner = clock.around("inner", lambda: None)
    clock.around("outer", inner)()
    assert clock.seconds == {"inner": 3.0, "outer": 3.0}


@needs_cpu_backend
def test_every_part_of_the_cpu_backend_has_its_clock():
    """A backend that was rearranged needs other names in `PARTS`."""
    kind = block_kinds(TINY)[0]
    candidate = next(one for one in candidates() if one.name == "cpu bfloat16")
    block = candidate.make_block(dit4sr(TINY), kind, STREAMS, CPU, BITS, RANKS)
    with torch.inference_mode():
        times = part_times(block.work(), rounds=2, now=iter(range(10**6)).__next__, products=1000)
    assert times.missing == []
    native = native_kernels().kernels is not None
    theirs = {"rotation and codes"} if native else {"rotation", "codes", "sums", "gelu"}
    assert set(times.parts) == {"factors", "integer products", "attention", REST} | theirs
    assert times.whole == pytest.approx(sum(times.parts.values()))
    assert times.integer_gops is not None


def test_functions_are_put_back_and_absent_ones_are_named():
    absent = ("fusion", "runtime.backends.cpu.linear", "CpuLinear.no_such_pass")
    nowhere = ("fusion", "runtime.backends.cpu.linear", "NoSuchClass.pass_")
    before = (CpuLinear.prepare, torch.nn.functional.gelu)
    with clocked(Clock(lambda: 0.0), (*PARTS, absent, nowhere)) as missing:
        assert CpuLinear.prepare is not before[0]
        assert missing[-2:] == [
            "runtime.backends.cpu.linear.CpuLinear.no_such_pass",
            "runtime.backends.cpu.linear.NoSuchClass.pass_",
        ]
    assert (CpuLinear.prepare, torch.nn.functional.gelu) == before


# Candidates


def candidates(**changes):
    options = {"backends": None, "compiling": False, "peers": True} | changes
    return all_candidates(CPU, **options)


@pytest.fixture
def no_peers(monkeypatch):
    """A machine without SDNQ and torchao."""
    monkeypatch.setattr(peers, "_not_installed", lambda package: f"{package} is not installed")


def test_a_package_that_is_not_there():
    assert peers._not_installed("torch") is None
    assert peers._not_installed("no_such_package") == "no_such_package is not installed"


@pytest.mark.usefixtures("no_peers")
def test_every_backend_and_peer_takes_part_or_says_why_not():
    found = {one.name: one for one in candidates()}
    assert {one.backend for one in found.values()} == {None, *BACKENDS}
    assert found["torch bfloat16"].missing is None
    assert found["triton bfloat16"].missing == "it runs on CUDA alone"
    assert found["SDNQ int8"].missing == "sdnq is not installed"
    assert found["torchao int8 dynamic"].missing == "torchao is not installed"
    assert found["torchao fp8 dynamic"].missing is not None
    names = [name for one in found.values() for name in one.mode_names]
    assert len(names) == len(set(names))
    chosen = candidates(backends=["reference"], peers=False)
    assert [one.name for one in chosen] == ["torch bfloat16", "torch float32", "reference float32"]


def test_on_cuda_graphs_are_compared_too(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    found = {
        one.name: one
        for one in all_candidates(
            torch.device("cuda", 7), backends=None, compiling=True, peers=False
        )
    }
    assert found["triton bfloat16"].mode_names == [
        "triton bfloat16",
        "triton bfloat16, compiled",
        "triton bfloat16, graph",
        "triton bfloat16, compiled, graph",
    ]
    assert found["reference bfloat16"].mode_names == ["reference bfloat16"]
    assert found["cpu bfloat16"].missing is not None


def test_what_goes_wrong_is_a_reason_of_one_line():
    def fail():
        raise RuntimeError("no compiler\nand a long story")

    assert attempt(fail) == "RuntimeError: no compiler"
    assert attempt(lambda: 3) == 3

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupt)


ALONE = block_kinds(tiny_config(layers=1, dual=()))[0]


@pytest.mark.parametrize("kind", [*block_kinds(TINY), ALONE])
def test_no_candidate_holds_layers_that_nobody_reads(kind):
    config = tiny_config(layers=1, dual=()) if kind == ALONE else TINY
    plain = BenchBlock(dit4sr(config), kind, STREAMS, CPU, torch.float32)
    assert not {"attn.to_k_control", "attn2.add_q_proj"} & set(plain.layer_names)
    reference = next(one for one in candidates() if one.backend == "reference")
    block = reference.make_block(dit4sr(config), kind, STREAMS, CPU, BITS, RANKS)
    assert block.layer_names == plain.layer_names
    assert block.weights == plain.weights
    assert set(block.column) == set(block.layer_names)
    assert all(isinstance(layer, ReferenceLinear) for layer in block.layers)
    block.work()()


def test_torchao_converts_the_layers_it_is_given(monkeypatch):
    asked = []

    def quantize(module, config, filter_fn):
        names = [name for name, layer in module.named_modules() if filter_fn(layer, name)]
        asked.append((config, names))

    class NewConfig:
        def __init__(self, set_inductor_config=True):
            self.inductor = set_inductor_config

    class OldConfig:
        pass

    fake = SimpleNamespace(
        quantize_=quantize,
        Int8DynamicActivationInt8WeightConfig=NewConfig,
        Float8DynamicActivationFloat8WeightConfig=OldConfig,
    )
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchao.quantization", fake)
    _, int8, float8 = peers.all_peers(compiling=False)
    assert int8.missing(CPU) is None
    assert float8.missing(CPU) == "it runs on CUDA alone"
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    for peer in (int8, float8):
        peer.apply(module, ["a"], torch.bfloat16)
    assert [names for _, names in asked] == [["a"], ["a"]]
    assert asked[0][0].inductor is False


def test_sdnq_quantizes_every_layer(capsys, monkeypatch):
    pytest.importorskip("sdnq", reason="an outside peer, installed by whoever measures it")
    monkeypatch.setenv("SDNQ_USE_TORCH_COMPILE", "0")
    sdnq = next(one for one in candidates() if one.name.startswith("SDNQ"))
    assert sdnq.name == "SDNQ int8"
    config = tiny_config(heads=4, head=32)
    block = sdnq.make_block(dit4sr(config), block_kinds(config)[0], STREAMS, CPU, BITS, RANKS)
    assert all(hasattr(layer, "sdnq_dequantizer") for layer in block.layers)
    assert block.column is None
    block.work()()
    assert resident_bytes(block.layers) < 1.2 * block.weights  # one byte each, and scales
    assert capsys.readouterr().out == ""


# The whole


@pytest.mark.usefixtures("no_peers")
def test_result_has_every_candidate_with_its_times_or_its_reason():
    result = measure(tiny_settings(layers=True, peers=True), dit4sr(TINY), BenchListener())
    content = json.loads(json.dumps(to_json(result), allow_nan=False))
    (size,) = content["sizes"]
    assert [(block["kind"], block["count"]) for block in size["blocks"]] == [
        ("two attentions", 1),
        ("one attention", 2),
    ]
    names = [mode for one in content["candidates"].values() for mode in one["modes"]]
    for block in size["blocks"]:
        assert set(block["times"]) | set(block["unavailable"]) == set(names)
        assert not set(block["times"]) & set(block["unavailable"])
        assert all(block["unavailable"].values())
        for times in block["times"].values():
            assert 0 < times["lowest_ms"] <= times["median_ms"] <= times["highest_ms"]
        shares = {name: use["share_of_bfloat16"] for name, use in block["memory"].items()}
        assert shares["torch bfloat16"] == 1
        assert shares["torch float32"] == 2
    assert "torch bfloat16, compiled" in size["blocks"][0]["unavailable"]
    assert content["candidates"]["SDNQ int8"]["unavailable"] == "sdnq is not installed"

    for name in ("torch bfloat16", "torch float32", "reference float32"):
        medians = [block["times"][name]["median_ms"] for block in size["blocks"]]
        assert size["step_ms"][name] == pytest.approx(medians[0] + 2 * medians[1], abs=2e-3)
    step = size["step_ms"]
    assert size["times_faster"]["reference float32"]["torch float32"] == pytest.approx(
        step["torch float32"] / step["reference float32"], rel=0.02
    )
    assert size["layers"]
    for layer in size["layers"]:
        assert layer["times"]["torch bfloat16"]["preparation"] is None
        assert layer["times"]["reference float32"]["preparation"]["median_ms"] > 0
        assert layer["unavailable"]["triton bfloat16"] == "it runs on CUDA alone"

    from rich.console import Console

    console = Console(width=1000, file=io.StringIO(), record=True)
    console.print(render(result))
    text = console.export_text()
    for name in names:
        assert name in text
    assert "[lowest, highest]" in text
    assert "whole step = 1 x median of two attentions + 2 x median of one attention" in text


def test_progress_counts_every_block_and_layer():
    advanced, steps = [], []
    listener = BenchListener(
        step=lambda done, total: steps.append((done, total)), advance=lambda: advanced.append(1)
    )
    options = tiny_settings(layers=True, backends=("reference",))
    measure(options, dit4sr(TINY), listener)
    assert len(advanced) == count_steps(options, dit4sr(TINY))
    assert set(steps) == {(1, 2), (2, 2)}


def test_without_a_compiler_the_rest_is_measured(monkeypatch):
    def compile(*_, **__):
        raise RuntimeError("no C++ compiler\nat all")

    monkeypatch.setattr(torch, "compile", compile)
    said = []
    result = measure(tiny_settings(compiling=True), dit4sr(TINY), BenchListener(say=said.append))
    for block in result.sizes[0].blocks:
        assert block.unavailable["torch bfloat16, compiled"] == "RuntimeError: no C++ compiler"
        assert "torch bfloat16" in block.times
    assert "unavailable: torch bfloat16, compiled: RuntimeError: no C++ compiler" in said


def test_a_candidate_that_cannot_be_built_says_why(monkeypatch):
    def refuse(*_):
        raise MemoryError("3 GiB")

    monkeypatch.setattr("runtime.backends.reference.ReferenceLinear.__init__", refuse)
    result = measure(
        tiny_settings(backends=("reference",), layers=True), dit4sr(TINY), BenchListener()
    )
    (size,) = result.sizes
    assert size.unavailable["reference float32"] == "MemoryError: 3 GiB"
    assert all(layer.unavailable for layer in size.layers)
    assert set(size.step_seconds) == {"torch bfloat16", "torch float32"}


# The command


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr(cli_bench, "network_to_measure", lambda: (dit4sr(TINY), 5))


QUICK = ["bench", "--rounds=1", "--no-peers", "--no-layers", "--backend=reference"]


@pytest.mark.usefixtures("small_network")
def test_json_alone_is_on_stdout(tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "new" / "bench.json"
    result = runner.invoke(cli.app, [*QUICK, "--processor-time", "--json", "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert json.loads(out.read_text()) == content
    assert content["settings"]["clock"] == "processor time"
    assert content["settings"]["batch"] == 1
    assert content["machine"]["threads"] == 1
    assert content["sizes"][0]["image_tokens"] == 1024
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("small_network")
def test_tables_are_on_stdout_in_full():
    result = runner.invoke(cli.app, [*QUICK, "--bits=W3A8", "--ranks=2+1", "--batch=1"])
    assert result.exit_code == 0, result.stderr
    assert "W3A8, ranks 2+1" in result.stdout
    assert "reference float32" in result.stdout
    assert "inputs prepared" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--size=300"],
        ["--batch=0"],
        ["--bits=four"],
        ["--ranks=32"],
        ["--device=abacus"],
        ["--backend=magic"],
        ["--rounds=0"],
        ["--threads=0"],
        ["--threads=2", "--processor-time"],
        ["--out=/"],
        ["--no-such-option"],
    ],
)
def test_settings_that_cannot_be_are_usage_errors(options, monkeypatch):
    monkeypatch.setattr(cli_bench, "_run", lambda *_, **__: pytest.fail("it was measured"))
    result = runner.invoke(cli.app, ["bench", *options])
    assert result.exit_code == 2, result.stderr


@pytest.mark.usefixtures("small_network")
def test_interrupted(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.bench.run.interleaved", interrupt)
    result = runner.invoke(cli.app, QUICK)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert result.stdout == ""


def test_help_has_an_example():
    result = runner.invoke(cli.app, ["bench", "--help"])
    assert result.exit_code == 0
    assert "qrun bench" in result.stdout.split("Usage", 1)[1].split("\n", 1)[1]
