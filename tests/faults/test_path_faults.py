"""Paths that no file system takes, wherever a command takes a path: exit 2 or 3, in two lines."""

import pytest

from tests.artifacts.make_pack import make_pack
from tests.planner.run_qplan import run_qplan

LONG = "a" * 300
DEEP = "/".join(["a" * 200] * 30)
ELSEWHERE = "/x" * 3000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paths")
    make_pack(folder / "m.qpack")
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").write_bytes(b"not looked into")
    return folder


QRUN = [
    "upscale {path} --pack m.qpack",
    "upscale photos/a.png --pack m.qpack -o {path}",
    "upscale photos/a.png --pack m.qpack -o {path}.png",
    "upscale photos/a.png --pack m.qpack -o {path}/b.png",
    "upscale {path}/*.png --pack m.qpack",
    "eval {path} --pack m.qpack",
    "eval photos --truth {path} --pack m.qpack",
    "eval photos --results other={path} --pack m.qpack",
    "eval photos --pack {path} --metrics psnr",
    "eval photos --full-precision {path}",
    "eval photos --pack m.qpack -o {path}",
    "eval photos --pack m.qpack --csv {path}",
    "bench -o {path}",
]
QPLAN = [
    "estimate {path}",
    "build {path}",
    "build {path}.safetensors",
    "build photos -o {path}",
    "build photos --base {path}",
    "build photos --calib {path}",
    "calibrate {path} --calib photos",
    "calibrate photos --calib {path}",
    "inspect {path}",
    "verify {path}",
    "diff m.qpack {path}",
]


def check(result):
    assert result.exit_code in {2, 3}, result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert "Error" not in result.stderr


@pytest.mark.parametrize("command", QRUN)
@pytest.mark.parametrize("path", [LONG, DEEP, ELSEWHERE], ids=["long", "deep", "elsewhere"])
def test_qrun_refuses_a_path_that_is_too_long(inputs, qrun, monkeypatch, command, path):
    monkeypatch.chdir(inputs)
    check(qrun(*(word.format(path=path) for word in command.split())))


@pytest.mark.parametrize("command", QPLAN)
@pytest.mark.parametrize("path", [LONG, DEEP, ELSEWHERE], ids=["long", "deep", "elsewhere"])
def test_qplan_refuses_a_path_that_is_too_long(inputs, monkeypatch, command, path):
    monkeypatch.chdir(inputs)
    check(run_qplan(*(word.format(path=path) for word in command.split())))
