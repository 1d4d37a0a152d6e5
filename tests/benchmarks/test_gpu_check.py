"""The GPU check's parts, as far as they run without a GPU: in Triton's interpreter."""

import json
import re
import sys

import pytest
import torch
from torch import nn

from benchmarks import gpu_check
from benchmarks.gpu import parity
from benchmarks.gpu.block import Block, Step, linears, run_blocks
from benchmarks.gpu.parity import relative_error
from benchmarks.gpu.report import page
from runtime.backends.triton import tune as tune_module
from runtime.backends.triton.linear import TritonLinear
from runtime.backends.triton.random_layers import RULE, random_layer
from runtime.backends.triton.table_file import SHIPPED
from runtime.dit4sr.blocks import ControlBlock
from schemas.transformer_config import TransformerConfig
from tests.runtime.triton_device import DEVICE, seeded

CONFIG = TransformerConfig(
    sample_size=16,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=24,
    caption_projection_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=32,
    dual_attention_layers=(0,),
)
SPREAD = {"median": 10.0, "lowest": 9.0, "highest": 12.5}
RESULT = {
    "device": "Some GPU",
    "capability": "9.0",
    "date": "2026-01-31",
    "torch": "2",
    "triton": "3",
    "command": "python -m benchmarks.gpu_check --out docs/results",
}


def test_without_a_device_it_fails_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 1
    assert "needs a CUDA device" in capsys.readouterr().err


def test_an_unknown_phase_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--phases", "parity,party"])
    with pytest.raises(SystemExit) as caught:
        gpu_check.main()
    assert caught.value.code == 2
    assert "no such phase: party" in capsys.readouterr().err


def test_comparisons_hold_here():
    small = random_layer("layer", 64, 96, rank=3, grid=(4, 3), device=DEVICE)
    results = [
        parity._integers(DEVICE, 5, range(3, 5), 9, 40, 96),
        parity._rotation(DEVICE, 80, torch.float32),
        parity._rotation(DEVICE, 144, torch.float16),
        parity._codes(DEVICE, tokens=9),
        parity._layer(small, "packed", torch.float32, tokens=9),
        parity._layer(small, "int8", torch.float16, tokens=9),
        parity._not_finite(DEVICE),
    ]
    assert all(passed for passed, _ in results), results


def test_comparisons_find_a_wrong_kernel(monkeypatch):
    def off_by_one(*arguments, **options):
        return product(*arguments, **options) + 1

    product = parity.product
    monkeypatch.setattr(parity, "product", off_by_one)
    passed, detail = parity._integers(DEVICE, 4, range(4, 5), 3, 32, 32)
    assert not passed
    assert detail == "192 of 192 wrong"


def test_an_exception_fails_its_own_comparison_alone(monkeypatch):
    def broken():
        raise RuntimeError("no such tile")

    cases = [("first", broken), ("second", lambda: (True, "equal"))]
    monkeypatch.setattr(parity, "_cases", lambda device, quick: cases)
    first, second = parity.checks(DEVICE, quick=True)
    assert not first.passed
    assert "no such tile" in first.detail
    assert second.passed


def plain_linear(name, out_features, in_features):
    return nn.Linear(in_features, out_features)


NAMES = {
    "norm1.linear.": "norm1.",
    "norm1_context.linear.": "norm1_context.",
    "ff.net.0.proj.": "ff_in.",
    "ff.net.2.": "ff_out.",
    "ff_context.net.0.proj.": "text_in.",
    "ff_context.net.2.": "text_out.",
    "ff.control_conv.": "control_conv.",
    "to_out.0.": "to_out.",
}


def own_name(name):
    """A parameter of the network's block by the name it has in the benchmark's."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return re.sub(r"\.norm_(\w+)\.weight$", r".norms.\1", name)


@pytest.mark.parametrize("dual", [True, False])
def test_the_block_mirrors_the_networks(dual):
    network = ControlBlock(CONFIG, "q", dual=dual, last=False).eval().requires_grad_(False)
    block = Block(plain_linear, dual=dual, grid=(2, 3), hidden=32, heads=2)
    state = {
        own_name(name): torch.randn(tensor.shape, generator=seeded(index)) * 0.3
        for index, (name, tensor) in enumerate(network.state_dict().items())
    }
    theirs = dict(zip(network.state_dict(), state.values(), strict=True))
    network.load_state_dict(theirs)
    unread = {name for name in state if name not in block.state_dict()}
    assert all("to_k_control" in name or "attn2." in name for name in unread)
    block.load_state_dict({name: state[name] for name in block.state_dict()})
    latent, text, temb = (
        torch.randn(shape, generator=seeded(9)) for shape in ((2, 12, 32), (2, 5, 32), (2, 32))
    )
    for found, expected in zip(
        block(latent, text, temb, None), network(latent, text, temb, (2, 3), None), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def quantized_step(residency):
    def make(name, out_features, in_features):
        layer = random_layer(name, out_features, in_features, rank=2, grid=(2, 2), device=DEVICE)
        return TritonLinear(layer, RULE, residency)

    step = Step(make, grid=(2, 2), hidden=32, heads=2)
    return step.to(DEVICE).eval().requires_grad_(False)


def test_quantized_blocks_compile_in_one_piece():
    step = quantized_step("packed")
    inputs = [
        torch.randn(shape, generator=seeded(7)).to(DEVICE)
        for shape in ((2, 8, 32), (2, 3, 32), (2, 32))
    ]
    bits = {module.name: 4 for module in linears(step).values()}
    compiled = [torch.compile(block, fullgraph=True, backend="aot_eager") for block in step.blocks]
    with torch.inference_mode():
        found = run_blocks(compiled, *inputs, bits, counts=(1, 1))
        expected = run_blocks(step.blocks, *inputs, bits, counts=(1, 1))
    assert relative_error(found, expected) < 1e-5


def test_a_page_holds_what_was_measured():
    assert page(RESULT).startswith("# The CUDA backend on Some GPU\n\nMeasured on 2026-01-31,")
    checks = [
        {"name": "one", "passed": True, "detail": "equal"},
        {"name": "two", "passed": False, "detail": "3 of 9 wrong"},
    ]
    names = ("cuBLAS bf16", "int8", "packed", "thin and product, int8", "prepare, int8")
    product = {
        "tokens": 2381,
        "in": 1536,
        "out": 6144,
        "us": dict.fromkeys(names, SPREAD),
        "times_faster": {"int8": 1.5, "packed": 1.25, "thin and product, int8": 1.75},
    }
    step = {
        "tokens": {"batch": 2, "image": 1024, "text": 333},
        "us": {"bf16 eager": {"median": 12340.0, "lowest": 12000.0, "highest": 13000.0}},
        "skipped": {"bf16 compiled": "no compiler"},
        "resident": {"packed": {"bytes": 1234567, "share_of_bf16": 0.3051}},
        "targets": [{"fast": "a", "peer": "b", "asked": 1.35, "reached": 1.4}],
    }
    text = page({**RESULT, "parity": checks, "products": [product], "step": step})
    for part in (
        "1 of 2 comparisons",
        "| two | 3 of 9 wrong |",
        "| 2381, 1536 → 6144 | 10.0 (9.0 to 12.5) | 10.0 (9.0 to 12.5) (1.50)",
        "| bf16 eager | 12.34 (12.00 to 13.00) |",
        "| bf16 compiled | did not run: no compiler |",
        "| a against b | 1.35 | 1.40 |",
        "| packed | 1,234,567 | 0.305 |",
    ):
        assert part in text


@pytest.fixture
def some_gpu(monkeypatch, tmp_path):
    """The device's parts replaced; all comparisons are made up, one of them fails."""
    checks = [parity.Check("one", True, "equal"), parity.Check("two", False, "3 of 9 wrong")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU 80GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(parity, "checks", lambda device, quick: iter(checks))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_tuning_writes_the_table_that_ships(some_gpu, monkeypatch, capsys, tmp_path):
    asked = {}

    def tune(device, **options):
        asked.update(options)
        return {"90/prepare/16/1536/1536": {}}

    own = tmp_path / "cache" / "qdit4sr" / "triton-table.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    monkeypatch.setattr(tune_module, "tune", tune)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--tune", "--phases", ""])
    assert gpu_check.main() == 0
    assert asked["table"] == SHIPPED
    printed = capsys.readouterr().out
    assert "1 rows of `table.json` were refreshed" in printed
    assert f"tile sizes of {own} lie over those that ship" in printed


def test_a_run_writes_both_files_and_ends_with_the_failures(
    some_gpu, monkeypatch, capsys, tmp_path
):
    """The whole command."""
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path), "--quick"])
    assert gpu_check.main() == 1
    printed = capsys.readouterr().out
    assert "PASS  one: equal" in printed
    assert "FAIL  two: 3 of 9 wrong" in printed
    assert "phase products" not in printed
    content = json.loads((tmp_path / "gpu-some-gpu-80gb.json").read_text())
    assert [row["passed"] for row in content["parity"]] == [True, False]
    assert "1 of 2 comparisons" in (tmp_path / "gpu-some-gpu-80gb.md").read_text()
