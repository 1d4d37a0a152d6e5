"""The full-size run, on a network that is small and in this process: its commands fit together."""

import sys
from contextlib import redirect_stdout

from benchmarks import full_size_build, full_size_run
from benchmarks.full_size_run import ONE_LOAD, ONE_UPSCALE, PARTS, QPLAN, STEPS, VAE, Size, measure
from tests.artifacts.make_pack import TINY
from tests.planner.run_qplan import run_qplan

SMALL_VAE = VAE | {
    "block_out_channels": (4,) * 4,
    "latent_channels": TINY.in_channels,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
NETWORK = TINY.model_copy(update={"pos_embed_max_size": 32})  # tiles as large as DiT4SR's
SIZE = Size(NETWORK, SMALL_VAE, text_tokens=7, picture_px=32, probe_px=16)


def test_its_commands_run_one_after_the_other(tmp_path, monkeypatch):
    ran = []

    def in_this_process(command, *, stdout=None):
        if command[:3] == [*QPLAN]:
            ran.append(command[3])
            result = run_qplan(*command[3:])
            assert result.exit_code == 0, result.output
        else:
            program = command[2]
            ran.append({ONE_LOAD: "load", ONE_UPSCALE: "upscale"}[program])
            monkeypatch.setattr(sys, "argv", ["-c", *command[3:]])
            with redirect_stdout(stdout):
                exec(program, {})
        return {"wall_s": 1.0}

    for module in (full_size_build, full_size_run):
        monkeypatch.setattr(module, "run", in_this_process)
    full_size_build.write_random_checkpoint(tmp_path / "dit4sr_random.safetensors", NETWORK)
    result = measure(tmp_path, SIZE, target="W4A4", parts=PARTS)
    assert tuple(ran) == PARTS
    assert result["build"]["pack_bytes"] > 0
    assert all(result[part]["machine"]["threads"] for part in PARTS)
    assert result["load"]["load_processor_s"] > 0
    (times,) = result["upscale"]["stages"].values()
    assert times["passes"] % STEPS == 0
    assert times["whole"]["median"] > 0
    assert set(times["stages"]) >= {"network", "VAE encoder", "VAE decoder"}
    ran.clear()
    assert "build" not in measure(tmp_path, SIZE, target="W4A4", parts=["verify"])
    assert ran == ["verify"]


def test_a_process_is_accounted_for(tmp_path):
    with (tmp_path / "out").open("w") as stream:
        took = full_size_build.run([sys.executable, "-c", "print('done')"], stdout=stream)
    assert (tmp_path / "out").read_text() == "done\n"
    assert took["wall_s"] > 0
    assert took["peak_gib"] > 0
