"""Measuring tile sizes: in Triton's interpreter, with times made up; and the command around it."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from runtime.backends.triton import tile_table
from runtime.backends.triton.device import capability
from runtime.backends.triton.rotation_plan import plan_for
from runtime.backends.triton.tile_table import config_for, triton_version
from runtime.backends.triton.tile_table_file import SHIPPED, Origin, read_file, write_rows
from runtime.bench import tile_tuning as module
from runtime.bench.random_layers import random_layer
from runtime.bench.timing import Spread
from runtime.bench.workload import Ranks
from runtime.cli import tune as cli_tune
from tests.runtime.triton_device import DEVICE

ANY = {"num_stages", "programs", "maxnreg"}
"""What need not be a power of two."""
GPU = "Some GPU"
LEVEL = capability(DEVICE)
FAST = {"BM": 32, "elements": 2048}
"""What the made-up times call fastest."""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tile_table.forget()
    yield tmp_path / "cache" / "qdit4sr" / "triton-table-2.json"
    tile_table.forget()


def few_configurations(kernel, tokens):
    if kernel == "prepare":
        launch = {"num_warps": 4, "num_stages": 1, "programs": 2, "maxnreg": 128}
        yield from ({"elements": n, **launch} for n in (512, 1024, 2048))
        return
    sizes = {"BN": 32, "GROUP": 2} if kernel.startswith("product") else {}
    for bm in (16, 32, 64):
        yield {**sizes, "BM": bm, "BK": 32, "num_warps": 4, "num_stages": 2}


@pytest.fixture
def small(monkeypatch):
    """Two small shapes in two buckets; tiles of 64 tokens do not run; the rest has made-up times.

    Filled with how often each configuration was run.
    """
    runs = []

    def captured(call, calls):
        if call.args[0].get("BM") == 64:
            raise RuntimeError("out of resource: shared memory")
        call()
        runs.append(call.args[0])
        return call

    def interleaved(works, *, rounds, timer, calls):
        def time(name):
            config = json.loads(name)
            return 1e-6 if any(config.get(key) == value for key, value in FAST.items()) else 2e-6

        return {name: Spread(time(name), 5e-7, 3e-6) for name in works}

    monkeypatch.setattr(module, "captured", captured)
    monkeypatch.setattr(module, "interleaved", interleaved)
    monkeypatch.setattr(module, "configurations", few_configurations)
    monkeypatch.setattr(module, "TOKENS", {2: ((64, 32),), 19: ((32, 64),), 20: ((32, 64),)})
    monkeypatch.setattr(module, "RANKS", Ranks(4, 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPU)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return runs


def measure(table, *, until=lambda: False, note=lambda text: None):
    return module.tune(DEVICE, table=table, rounds=1, until=until, note=note)


def test_the_fastest_that_runs_is_written_and_in_force(small, own):
    before = config_for(LEVEL, "product8", 20, 32, 64)
    noted = []
    rows = measure(own, note=noted.append)
    assert set(rows) == {
        f"{LEVEL}/prepare/64/64/64",
        f"{LEVEL}/product8/64/32/64",
        f"{LEVEL}/product_packed/64/32/64",
        f"{LEVEL}/thin/64/*/64",
        f"{LEVEL}/prepare/16/32/32",
        f"{LEVEL}/product8/16/64/32",
        f"{LEVEL}/product_packed/16/64/32",
        f"{LEVEL}/thin/16/*/32",
    }
    assert all(
        row.get("BM", 32) == 32 and row.get("elements", 2048) == 2048 for row in rows.values()
    )
    # No shape twice, though two numbers share a bucket; of rows of 64, 512 elements are one token
    # as 1024 are.
    assert len(small) == (3 + 2) + 2 * 3 * 2
    assert len(noted) == len(rows)
    assert all(": 1.0 us {" in line for line in noted)
    table = read_file(own)
    assert table.rows == rows
    assert table.measured == {LEVEL: Origin(GPU, triton_version())}
    assert config_for(LEVEL, "product8", 20, 32, 64) == rows[f"{LEVEL}/product8/64/32/64"] != before


def test_an_early_end_keeps_what_was_measured(small, own):
    rows = measure(own, until=lambda: True)
    assert {name.split("/")[2] for name in rows} == {"64"}
    assert read_file(own).rows == rows


def test_a_kernel_of_which_nothing_runs_gets_no_row(small, own, monkeypatch):
    def wide(kernel, tokens):
        rows = few_configurations(kernel, tokens)
        return ({**row, "BM": 64} for row in rows) if kernel == "thin" else rows

    monkeypatch.setattr(module, "configurations", wide)
    assert not [name for name in measure(own) if "thin" in name]


def test_all_configurations_are_compiled_whatever_becomes_of_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    seen = []

    def run(config):
        seen.append(config["BM"])
        if config["BM"] == 64:
            raise RuntimeError("out of resource: shared memory")

    module.compile_all(run, few_configurations("thin", 16), DEVICE)
    assert sorted(seen) == [16, 32, 64]


def test_rows_in_force_name_the_row_that_a_shape_takes(small, own):
    write_rows(
        own,
        {"90/thin/64/*/64": dict(read_file(SHIPPED).rows["90/thin/64/*/*"])},
        90,
        Origin(GPU, triton_version()),
    )
    tile_table.forget()
    rows = module.rows_in_force(90)
    assert rows["90/thin/64/*/64"] == "90/thin/64/*/64"
    assert rows["90/thin/16/*/32"] == "90/thin/16/*/*"
    assert rows["90/product8/64/32/64"] == "90/product8/64/*/*"
    assert len(rows) == 8


@pytest.mark.parametrize("kernel", ["prepare", "thin", "product8"])
def test_configurations_are_powers_of_two_and_none_comes_twice(kernel):
    for tokens in (2, 4096):
        rows = list(module.configurations(kernel, tokens))
        assert len(rows) == len({tuple(row.items()) for row in rows}) > 4
        for row in rows:
            assert all(v & v - 1 == 0 for key, v in row.items() if key not in ANY)


@pytest.mark.parametrize(("size", "apart"), [(1536, 3), (6144, 1)])
def test_tokens_that_fill_a_program_are_not_timed_again(size, apart):
    rotation = random_layer(
        "any", 64, size, weight_bits=4, ranks=Ranks(4, 2), generator=torch.Generator()
    ).rotation
    plan = plan_for(rotation, None, None, torch.device("cpu"))
    every = list(module.configurations("prepare", 2))
    kept = module.distinct(every, plan)
    assert len({config["elements"] for config in every}) == 3
    assert len({config["elements"] for config in kept}) == apart
    assert len(kept) * 3 == len(every) * apart
    assert module.distinct(module.configurations("thin", 2), plan) == list(
        module.configurations("thin", 2)
    )


app = typer.Typer()
app.command()(cli_tune.tune)
WRITTEN = {"90/thin/64/*/1536": {"BM": 32, "BK": 64, "num_warps": 4, "num_stages": 3}}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU; filled with what the measurement was asked for."""
    asked = []

    def measured(device, *, table, note, **options):
        asked.append({"device": device, "table": table, **options})
        note("90/thin/64/*/1536: 3.0 us")
        write_rows(table, WRITTEN, 90, Origin(GPU, triton_version()))
        return WRITTEN

    monkeypatch.setattr(module, "tune", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    return asked


def test_without_a_gpu_the_command_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments in ([], ["--list"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "torch sees none here" in result.stderr
        assert "hint: " in result.stderr


def test_a_gpu_too_old_for_the_kernels_is_refused(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 6)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    result = run()
    assert result.exit_code == 2
    assert "cannot run on cuda:6: it needs compute capability 8.0" in result.stderr
    assert not gpu


def test_the_users_own_table_is_the_default(gpu, own):
    result = run("--rounds", 7)
    assert result.exit_code == 0, result.stderr
    assert (gpu[0]["table"], gpu[0]["rounds"]) == (own, 7)
    assert not gpu[0]["until"]()
    assert result.stdout == ""
    assert "90/thin/64/*/1536: 3.0 us" in result.stderr
    assert f"done: 1 rows in {own}" in result.stderr
    assert read_file(own).rows == WRITTEN


def test_time_runs_out(gpu):
    assert run("--seconds", 0).exit_code == 0
    assert gpu[0]["until"]()


def test_output_and_json(gpu, own, tmp_path):
    file = tmp_path / "new" / "table.json"
    result = run("--output", file, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"table": str(file), "rows": WRITTEN}
    assert read_file(file).rows == WRITTEN
    assert not own.exists()


def test_a_file_that_is_no_table_is_left_alone(gpu, tmp_path):
    file = tmp_path / "bit_grid.json"
    file.write_text('{"format_version": 1}')
    result = run("--output", file)
    assert result.exit_code == 2
    assert "is no table of tile sizes" in result.stderr
    assert file.read_text() == '{"format_version": 1}'
    assert not gpu


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(gpu, tmp_path):
    (tmp_path / "file").write_text("")
    for file in (tmp_path, tmp_path / "file" / "table.json"):
        result = run("--output", file)
        assert result.exit_code == 2, result.stderr
    assert not gpu


def test_without_a_home_a_file_must_be_named(gpu, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", homeless)
    result = run()
    assert result.exit_code == 2
    assert "give --output" in result.stderr


def test_nothing_that_runs_is_an_error(gpu, own, monkeypatch):
    monkeypatch.setattr(module, "tune", lambda device, **options: {})
    result = run()
    assert result.exit_code == 2
    assert "no configuration of any kernel runs" in result.stderr


def test_ctrl_c_says_what_is_kept(gpu, own, monkeypatch):
    def interrupted(device, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "tune", interrupted)
    result = run()
    assert result.exit_code == 130
    assert f"shapes measured until now are in {own}" in " ".join(result.stderr.split())


def test_the_list_names_the_rows_of_every_shape(gpu, own, monkeypatch):
    result = run("--list")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"own table: {own} (none yet)"
    assert "90/product8/4096/6144/1536: its own: BN=128" in result.stdout
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 8)  # capabilities are remembered
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert "80/thin/4096/*/1536: 80/thin/4096/*/*: BM=32" in run("--list").stdout
    shown = json.loads(run("--list", "--json").stdout)
    assert shown["table"] == str(own)
    assert shown["shapes"]["80/thin/4096/*/1536"]["row"] == "80/thin/4096/*/*"
    assert not gpu
