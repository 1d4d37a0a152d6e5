"""Options with values that cannot be: exit code 2 in one line, before anything is loaded."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from runtime.backends import BACKENDS
from runtime.cli.app import make_app
from runtime.device_names import BACKEND_NAMES
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.planner.make_base import make_base
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture
def source(tmp_path):
    return write_file(tmp_path / "m.safetensors", random_state())


@pytest.fixture
def no_layers(monkeypatch):
    """A build that quantizes a layer fails the test."""

    def never(*_arguments, **_options):
        raise AssertionError("work was done before the options were looked at")

    monkeypatch.setattr("planner.weights.layer.decompose", never)
    monkeypatch.setattr("planner.build.layers.allocation_variance", never)


DEEP = "(" * 3000 + ")" * 3000


@pytest.mark.usefixtures("no_layers")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--guidance", "inf"), "--guidance inf"),
        (("--guidance", "nan"), "--guidance nan"),
        (("--guidance", "1e308"), "--guidance 1e+308"),
        (("--guidance", "-1"), "--guidance -1"),
        (("--keep", "a{99999999999}"), "pattern 'a{99999999999}'"),
        (("--keep", DEEP), "nested too deep"),
        (("--keep", "("), "pattern '('"),
        (("--seed", 2**64), f"seed {2**64}"),
        (("--global-rank", -1), "ranks -1"),
    ],
)
@pytest.mark.parametrize("command", ["build", "calibrate"])
def test_options_of_builds(source, tmp_path, command, options, said):
    if command == "calibrate":
        options = (*options, "--calib", tmp_path, "-o", tmp_path / "c.json")
    result = run_qplan(command, source, *options)
    assert_fails(result, 2, said)
    assert leftovers(tmp_path) == []
    assert len(result.stderr) < 500


@pytest.mark.usefixtures("no_layers")
def test_segments_of_a_build(source):
    assert_fails(run_qplan("build", source, "--segments", 0), 2, "0 segments")


@pytest.mark.parametrize("options", [("--keep", "a{99999999999}"), ("--keep", DEEP)])
def test_patterns_of_an_estimate(source, options):
    assert_fails(run_qplan("estimate", source, *options), 2, "pattern")


@pytest.mark.parametrize("pattern", ["a{99999999999}", DEEP])
def test_patterns_of_inspect_diff_and_regrid(pack, tmp_path, pattern):
    assert_fails(run_qplan("inspect", pack, "--layer", pattern), 2, "pattern")
    assert_fails(run_qplan("diff", pack, pack, "--layer", pattern), 2, "pattern")
    new = tmp_path / "new.qpack"
    assert_fails(run_qplan("regrid", pack, "--set", f"{pattern}=8", "-o", new), 2, "pattern")


@pytest.mark.usefixtures("no_layers")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--calib-crop", 70000), "crops of 70000 px"),
        (("--calib-crop", 0), "crops of 0 px"),
        (("--calib-images", 10**6), "1000000 calibration images"),
        (("--calib-seed", 2**64), "seed"),
    ],
)
def test_options_of_calibrations(source, tmp_path, options, said):
    base = make_base(tmp_path / "base")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    given = ("--base", base, "--calib", tmp_path, *options)
    assert_fails(run_qplan("build", source, *RANKS, *given), 2, said)


@pytest.mark.usefixtures("no_layers")
@pytest.mark.parametrize("name", [b"a\\b.png", b"a\nb.png", b"a\x1b[31m.png", b"a\xff.png"])
def test_image_names_that_cannot_be_recorded(source, tmp_path, name):
    base = make_base(tmp_path / "base")
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(folder / os.fsdecode(name))
    result = run_qplan("build", source, *RANKS, "--base", base, "--calib", folder)
    assert_fails(result, 2, "cannot be recorded", "rename the file")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "options", [("--steps", 0), ("--steps", 10**30), ("--resolution", -1), ("--text-tokens", -5)]
)
def test_options_of_an_estimate(options):
    result = run_qplan("estimate", "--preset", "dit4sr", *options)
    assert result.exit_code in (0, 2), result.output
    if result.exit_code:
        assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize("resolution", [-5, 0, 99999999])
def test_a_resolution_out_of_range_is_told_as_one(resolution):
    result = run_qplan("estimate", "--preset", "dit4sr", "--resolution", resolution)
    assert_fails(result, 2, f"--resolution {resolution}: 1 to 65536 px")


@pytest.mark.parametrize("name", ["DiT4SR", "dit4sr", "DIT4SR"])
def test_a_preset_in_any_case(name):
    assert run_qplan("estimate", "--preset", name).exit_code == 0


# qrun: before torch is imported


WATCHED = """
import sys
from runtime.cli.main import main
sys.argv[0] = "qrun"
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def run_watched(*arguments):
    """The exit code of a real ``qrun``, what it said, and whether it imported torch."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    *said, torch_imported = done.stderr.splitlines()
    return done.returncode, "\n".join(said), torch_imported == "True"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--steps", 0), 2, "--steps 0"),
        (("--steps", 10**30), 2, f"--steps {10**30}"),
        (("--color-fix", "lab"), 2, "--color-fix lab"),
        (("--seed", 2**64), 2, f"--seed {2**64}"),
        (("--guidance", "inf"), 2, "--guidance inf"),
        (("--guidance", "nan"), 2, "--guidance nan"),
        (("--fidelity", 1.1), 2, "--fidelity 1.1"),
        (("--fidelity", "nan"), 2, "--fidelity nan"),
        (("--tile", 0), 2, "--tile 0"),
        (("--overlap", -1), 2, "--overlap -1"),
        (("--activation-bits", 9), 2, "--activation-bits 9"),
        (("--backend", "gpu"), 2, "no backend 'gpu'"),
        (("--device", "tpu"), 2, "--device tpu"),
        (("--full-precision", "absent"), 3, "absent: no such file or folder"),
        (("--base", "absent"), 3, "absent: no such file or folder"),
        (("--base", "https://example.org/sd"), 3, "https://example.org/sd: a web address"),
        (("--pack", "nope"), 3, "nope: no such pack"),
        (("--pack", "https://example.org/a.qpack"), 3, "https://example.org/a.qpack: a web addr"),
    ],
)
def test_values_are_looked_at_before_torch_is_imported(pack, tmp_path, options, code, said):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    model = () if "--pack" in options else ("--pack", pack)
    found, stderr, torch_imported = run_watched("upscale", tmp_path / "a.png", *model, *options)
    assert (found, torch_imported) == (code, False), stderr
    assert said in stderr
    assert len(stderr.splitlines()) <= 2


def test_a_checkpoint_or_a_folder_of_packs_as_pack(pack, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    code, said, torch_imported = run_watched("upscale", tmp_path / "a.png", "--pack", pack.parent)
    assert (code, torch_imported) == (3, False)
    assert "a folder of packs: a.qpack" in said
    (tmp_path / "m" / "transformer").mkdir(parents=True)
    code, said, torch_imported = run_watched("eval", tmp_path, "--pack", tmp_path / "m")
    assert (code, torch_imported) == (3, False)
    assert "a checkpoint goes to `qplan build`, or to `--full-precision`" in said


def test_a_web_address_as_input(pack):
    code, said, _ = run_watched("upscale", "https://example.org/a.png", "--pack", pack)
    assert code == 2
    assert "https://example.org/a.png: a web address" in said


@pytest.mark.parametrize("command", ["qplan", "qrun"])
def test_version(command):
    from typer.testing import CliRunner

    from planner.cli.app import app

    found = CliRunner().invoke(app if command == "qplan" else make_app(), ["--version"])
    assert found.exit_code == 0
    assert found.stdout.strip()


def test_the_names_of_backends_are_those_of_the_table():
    assert tuple(BACKENDS) == BACKEND_NAMES
