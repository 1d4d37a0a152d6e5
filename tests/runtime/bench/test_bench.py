"""The command `qrun bench` as a whole, on a network a thousandth of DiT4SR's size."""

import io
import json

import pytest
import torch
from typer.testing import CliRunner

from runtime.bench.report import render, to_json
from runtime.bench.run import BenchListener, count_steps, measure
from runtime.cli import app as cli
from runtime.cli import bench as cli_bench
from tests.architectures import dit4sr
from tests.runtime.bench.small_network import (
    TINY,
    tiny_settings,
)

runner = CliRunner()


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
