"""A pipe in place of any file that a command reads: an error at once, where opening would wait."""

import os

import pytest

from planner.build.work_folder import work_folder
from runtime.backends.triton.tile_table_file import read_file
from tests.artifacts.make_checkpoint import INDEX, WEIGHTS, random_state, write_file, write_folder
from tests.planner.make_base import make_base, make_embeddings
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture(autouse=True)
def impatient():
    """Opening a pipe that nobody writes to would wait until the end of time."""
    import signal

    def late(_number, _frame):
        raise TimeoutError("a pipe was opened")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_files_of_a_checkpoint(tmp_path, name):
    path = write_folder(tmp_path / "m", random_state())
    pipe(path / "transformer" / name)
    assert_fails(run_qplan("build", path), 3, name, "not a regular file")


def test_the_index_and_a_shard(tmp_path):
    path = write_folder(tmp_path / "m", random_state(), shards=2)
    shard = sorted((path / "transformer").glob("*00002*"))[0]
    pipe(shard)
    assert_fails(run_qplan("build", path), 3, shard.name)
    pipe(path / "transformer" / INDEX)
    assert_fails(run_qplan("build", path), 3, INDEX, "not a regular file")


def test_a_bare_checkpoint(tmp_path):
    assert_fails(run_qplan("estimate", pipe(tmp_path / "m.safetensors")), 3, "not a regular file")


@pytest.mark.parametrize(
    "name",
    [
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "prompts.safetensors",
        "tokenizer/vocab.json",
        "tokenizer_3/tokenizer.json",
        "text_encoder/config.json",
        "text_encoder_2/model.safetensors",
    ],
)
def test_files_of_a_base(tmp_path, name):
    source = write_file(tmp_path / "m.safetensors", random_state())
    base = make_base(tmp_path / "base")
    pipe(base / name)
    result = run_qplan("build", source, *RANKS, "--base", base)
    if name == "prompts.safetensors":
        assert result.exit_code == 0, result.output  # the encoders are taken
    else:
        assert_fails(result, 3)


@pytest.mark.parametrize("option", ["--calibration", "--prompts", "--base"])
def test_files_that_options_name(tmp_path, option):
    source = write_file(tmp_path / "m.safetensors", random_state())
    result = run_qplan("build", source, *RANKS, option, pipe(tmp_path / "pipe"))
    assert result.exit_code in (2, 3), result.output
    assert "pipe" in result.stderr


def test_sampling_defaults(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    pipe(path / "sampling.json")
    assert_fails(run_qplan("build", path, *RANKS), 3, "sampling.json", "not a regular file")


def test_an_edited_grid(pack, tmp_path):
    words = ("regrid", pack, "--grid", pipe(tmp_path / "grid.json"), "-o", tmp_path / "new.qpack")
    assert_fails(run_qplan(*words), 2, "grid.json", "not a regular file")


@pytest.mark.parametrize("name", ["plan.json", "variances.json"])
def test_files_of_an_unfinished_build(tmp_path, name):
    source = write_file(tmp_path / "m.safetensors", random_state())
    output = tmp_path / "out.qpack"
    pipe(work_folder(output) / name)
    result = run_qplan("build", source, *RANKS, "-o", output)
    assert result.exit_code == 0, result.output


def test_a_pipe_among_calibration_images(tmp_path):
    source = write_file(tmp_path / "m.safetensors", random_state())
    base = make_base(tmp_path / "base")
    pipe(tmp_path / "photos" / "a.png")
    given = ("--base", base, "--calib", tmp_path / "photos")
    assert_fails(run_qplan("build", source, *RANKS, *given), 2, "no image")


def test_the_table_of_tile_sizes(tmp_path):
    with pytest.raises(ValueError, match="not a regular file"):
        read_file(pipe(tmp_path / "tiles.json"))


def test_prompt_embeddings_that_are_no_pipe_are_read(tmp_path):
    """What the others break."""
    source = write_file(tmp_path / "m.safetensors", random_state())
    given = ("--prompts", make_embeddings(tmp_path / "p.safetensors"))
    assert run_qplan("build", source, *RANKS, *given).exit_code == 0
