"""Options of `qrun upscale` that say where a batch is done, as far as they need no cluster."""

import pytest

from runtime.cluster import session
from tests.runtime.cli.test_cli import make_image


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "dask"), "--engine dask: one of local, ray"),
        (("--address", "auto"), "--address goes with --engine ray"),
        (("--worker-cores", "2"), "--worker-cores goes with --engine ray"),
        (("--memory", "none"), "--memory none: one of auto, low, fast"),
        (("--memory", "low", "--device", "tpu"), "--device tpu: one of auto, cpu, cuda, mps"),
    ],
)
def test_options_that_go_with_nothing(tmp_path, qrun, loads, options, said):
    source = make_image(tmp_path / "a.png")
    result = qrun("upscale", source, "--pack", "m", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert loads == []


def test_without_ray_one_line_names_the_extra(tmp_path, qrun, monkeypatch):
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda _name: None)
    source = make_image(tmp_path / "a.png")
    result = qrun("upscale", source, "--pack", "m", "--engine", "ray")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: --engine ray: Ray is not installed",
        "hint: pip install 'qdit4sr[cluster]'",
    ]


def test_the_memory_that_a_batch_took_is_said(tmp_path, qrun, loads):
    source = make_image(tmp_path / "a.png")
    result = qrun("upscale", source, "--pack", "m", "--memory", "low")
    assert result.exit_code == 0
    assert loads[0]["memory"] == "low"
    assert "peak memory: " in result.stderr
    again = qrun("upscale", source, "--pack", "m")
    assert "peak memory" not in again.stderr  # nothing was done
