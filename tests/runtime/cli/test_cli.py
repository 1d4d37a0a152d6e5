"""The command ``qrun``: names, exit codes, output; with a tiny random model in place of a pack."""

import json
import subprocess
import sys

import numpy as np
import pytest
import pyvips

from schemas.errors import PackError


def make_image(path, *, seed=0, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    path.write_bytes(image.write_to_buffer(path.suffix))
    return path


@pytest.fixture
def run(qrun):
    return lambda *arguments: qrun("upscale", *arguments)


def size_of(path):
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "")
    return image.height, image.width


def test_one_image_beside_its_input(tmp_path, run, loads):
    source = make_image(tmp_path / "a.png")
    result = run(source, "--pack", "m.qpack")
    assert result.exit_code == 0, result.stderr
    assert size_of(tmp_path / "a_x4.png") == (24, 32)
    assert result.stdout == ""
    assert "done:" in result.stderr
    assert [str(call["pack"]) for call in loads] == ["m.qpack"]


@pytest.mark.parametrize(
    ("out", "expected"),
    [("b.jpg", "b.jpg"), ("new/deep", "new/deep/a_x4.png"), ("new.d/", "new.d/a_x4.png")],
)
def test_out_is_a_file_or_a_folder(tmp_path, run, out, expected):
    source = make_image(tmp_path / "a.png")
    result = run(source, "--pack", "m", "-o", f"{tmp_path}/{out}")
    assert result.exit_code == 0, result.stderr
    assert size_of(tmp_path / expected) == (24, 32)


def test_folder_of_images_and_the_same_command_again(tmp_path, run):
    for index in range(3):
        make_image(tmp_path / f"{index}.png", seed=index)
    (tmp_path / "notes.txt").write_text("not an image")
    assert run(tmp_path, "--pack", "m").exit_code == 0
    results = sorted(path.name for path in tmp_path.glob("*_x4*"))
    assert results == ["0_x4.png", "1_x4.png", "2_x4.png"]

    (tmp_path / "1_x4.png").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_x4.png")}
    again = run(tmp_path, "--pack", "m", "--json")
    assert again.exit_code == 0
    statuses = [entry["status"] for entry in json.loads(again.stdout)["files"]]
    assert statuses == ["skipped", "done", "skipped"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    # The results of the first run lie in the same folder, and are not enlarged again.
    assert len(list(tmp_path.glob("*_x4*"))) == 3


def test_nothing_to_do_loads_no_model_and_force_redoes(tmp_path, run, loads):
    source = make_image(tmp_path / "a.png")
    make_image(tmp_path / "a_x4.png")
    result = run(source, "--pack", "m")
    assert (result.exit_code, loads) == (0, [])
    assert "--force" in result.stderr
    assert run(source, "--pack", "m", "--force").exit_code == 0
    assert size_of(tmp_path / "a_x4.png") == (24, 32)


def test_pattern_that_the_shell_left_alone(tmp_path, run):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    assert run(tmp_path / "*.png", "--pack", "m").exit_code == 0
    assert (tmp_path / "b_x4.png").exists()
    assert run(tmp_path / "*.gif", "--pack", "m").exit_code == 2


def test_json_has_the_same_keys_for_every_status(tmp_path, run):
    make_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    result = run(tmp_path / "a.png", tmp_path / "b.png", "--pack", "m", "--json")
    assert result.exit_code == 6
    done, failed = json.loads(result.stdout)["files"]
    assert done.keys() == failed.keys()
    assert (done["status"], done["width_px"], done["height_px"]) == ("done", 32, 24)
    assert (failed["status"], failed["exit_code"]) == ("failed", 4)
    assert "empty" in failed["error"]


def test_options_reach_the_sampler(tmp_path, run, monkeypatch):
    seen = {}

    def record(pipeline, source, output, settings, **_):
        seen.update(settings=settings, bits=pipeline.bits_at(500.0))
        raise PackError("enough seen")

    monkeypatch.setattr("runtime.upscale.upscale_file", record)
    source = make_image(tmp_path / "a.png")
    options = [
        "--steps=7",
        "--guidance=1.5",
        "--fidelity=0.5",
        "--seed=9",
        "--tile=8",
        "--color-fix=wavelet",
    ]
    result = run(source, "--pack", "m", *options)
    assert result.exit_code == 3
    settings = seen["settings"]
    assert (settings.steps, settings.guidance, settings.seed) == (7, 1.5, 9)
    assert settings.fidelity == 0.5
    assert (settings.tile, settings.overlap) == (8, 2)  # the overlap keeps its share: 4 of 16
    assert settings.color_fix == "wavelet"
    assert seen["bits"] is None


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", 0),
        ("--guidance", "nan"),
        ("--tile", 7),
        ("--tile", 66),
        ("--overlap", 16),
        ("--overlap", 3),
        ("--color-fix", "sepia"),
        ("--device", "abacus"),
        ("--dtype", "int8"),
        ("--seed", -1),
        ("--no-such-option",),
    ],
)
def test_settings_that_cannot_be_are_usage_errors(tmp_path, run, options):
    source = make_image(tmp_path / "a.png")
    result = run(source, "--pack", "m", *options)
    assert result.exit_code == 2, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_without_a_model_there_is_nothing_to_run(tmp_path, run):
    result = run(make_image(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "--pack" in result.stderr


def test_variant_is_that_of_an_unquantized_network(tmp_path, run, loads):
    source = make_image(tmp_path / "a.png")
    result = run(source, "--full-precision", "dit4sr/", "--variant", "r1")
    assert result.exit_code == 0, result.stderr
    assert loads[0]["variant"] == "r1"
    assert run(source, "--pack", "m", "--variant", "r1").exit_code == 2


def test_error_is_two_lines_and_a_traceback_only_in_debug(tmp_path, run, qrun):
    def broken(**_):
        raise PackError("m.qpack: manifest.json is missing", hint="is this a pack?")

    qrun.load = broken
    source = make_image(tmp_path / "a.png")
    result = run(source, "--pack", "m")
    assert result.exit_code == 3
    assert result.stderr.splitlines() == [
        "error: m.qpack: manifest.json is missing",
        "hint: is this a pack?",
    ]
    assert "Traceback" in run(source, "--pack", "m", "--debug").stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["upscale", "missing.png", "--pack", "m"], "missing.png: no such file or folder"),
        (["eval", "missing", "--pack", "m"], "missing: no such folder"),
    ],
)
def test_cli_imports_nothing_heavy(command, said):
    """Also holds for a command that fails on its inputs: the answer comes at once."""
    script = (
        "import sys\n"
        "from runtime.cli.app import app\n"
        f"try: app({command})\n"
        "except SystemExit as stop: assert stop.code == 2, stop.code\n"
        "heavy = {'torch', 'diffusers', 'pyvips', 'numpy', 'scipy', 'pyiqa'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import torch; assert 'torch' in sys.modules  # the check above can see it\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 0, done.stderr
    assert said in done.stderr


def test_doctor_names_what_runs_here(qrun):
    import torch

    from runtime.backends.cpu.kernels import VARIANTS

    result = qrun("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["torch"] == torch.__version__
    assert any("reference on cpu: available" in line for line in facts["backends"])
    assert any(line.startswith("cpu on cpu: ") and "kernels" in line for line in facts["backends"])
    assert [line.split(":")[0] for line in facts["cpu_kernels"]][: len(VARIANTS)] == list(VARIANTS)
    assert facts["devices"][0].startswith("cpu")
    assert "--activation-bits 8" in facts["activation_bits"]
    table = qrun("doctor")
    assert torch.__version__ in table.stdout


@pytest.mark.parametrize(
    ("options", "bits"), [((), None), (("grid",), None), ((8,), 8), ((16,), 16)]
)
def test_activations_have_the_grids_bits_or_others(tmp_path, run, loads, options, bits):
    given = ("--activation-bits", *options) if options else ()
    assert run(make_image(tmp_path / "a.png"), "--pack", "m", *given).exit_code == 0
    assert [load["activation_bits"] for load in loads] == [bits]


@pytest.mark.parametrize(("given", "said"), [("wide", "grid, 1 to 8"), (9, "1 to 8"), (-4, "grid")])
def test_a_width_that_activations_cannot_have(tmp_path, run, loads, given, said):
    result = run(make_image(tmp_path / "a.png"), "--pack", "m", "--activation-bits", given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert loads == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_another_setting_on_a_finished_result_is_said(tmp_path, run, loads, suffix):
    source = make_image(tmp_path / "a.png")
    out = tmp_path / f"result{suffix}"
    command = (source, "--pack", "m", "-o", out)
    assert run(*command, "--seed", 3).exit_code == 0
    before = out.read_bytes()

    assert run(*command, "--seed", 3).exit_code == 0
    assert len(loads) == 1
    for options, said in (
        (("--seed", 4), "seed 3 (now 4)"),
        (("--seed", 3, "--steps", 9), "steps unset (now 9)"),
        (("--seed", 3, "--prompt", "a cät"), "prompt unset (now a c"),
        (("--seed", 3, "--activation-bits", 8), "activation_bits unset (now 8)"),
    ):
        result = run(*command, *options)
        assert result.exit_code == 2
        assert said in result.stderr
        assert "--force" in result.stderr
    assert len(loads) == 1
    assert out.read_bytes() == before
    assert run(*command, "--seed", 4, "--force").exit_code == 0
    assert run(*command, "--seed", 4).exit_code == 0
    assert len(loads) == 2


def test_another_input_under_the_same_name_is_said(tmp_path, run):
    source = make_image(tmp_path / "a.png")
    assert run(source, "--pack", "m").exit_code == 0
    make_image(source, seed=1)
    result = run(source, "--pack", "m")
    assert result.exit_code == 2
    assert "input" in result.stderr


def test_what_is_no_picture_is_not_finished(tmp_path, run):
    make_image(tmp_path / "a.png")
    make_image(tmp_path / "b.png")
    assert run(tmp_path, "--pack", "m").exit_code == 0
    whole = (tmp_path / "a_x4.png").read_bytes()
    (tmp_path / "a_x4.png").write_bytes(b"")
    again = run(tmp_path, "--pack", "m")
    assert again.exit_code == 0, again.stderr
    assert "a_x4.png is no picture" in again.stderr
    assert (tmp_path / "a_x4.png").read_bytes() == whole


def test_a_picture_that_says_nothing_is_left_alone(tmp_path, run, loads):
    source = make_image(tmp_path / "a.png")
    make_image(tmp_path / "a_x4.png", seed=5)
    result = run(source, "--pack", "m")
    assert result.exit_code == 0
    assert "does not say how it was made" in result.stderr
    assert loads == []


def test_a_prompt_that_nothing_can_encode_is_refused_before_anything_is_imported(tmp_path):
    """A pack holds no text encoders; without --base there is none anywhere."""
    make_image(tmp_path / "a.png")
    (tmp_path / "m.qpack").mkdir()
    (tmp_path / "m.qpack" / "manifest.json").write_text("{}")
    words = ["upscale", "a.png", "--pack", "m.qpack", "--prompt", "a cat"]
    code = (
        f"import sys; sys.argv = ['qrun', *{words!r}]\n"
        "from runtime.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'diffusers' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "no text encoders" in result.stderr
    assert "--base" in result.stderr
