"""``qdit4sr.load("org/name@revision")`` and ``qrun upscale --pack org/name``."""

import numpy as np
import pytest
import pyvips

import qdit4sr
from tests.artifacts.hub.stand_in import Hub, log_in
from tests.artifacts.make_pack import make_pack
from tests.planner.run_qplan import run_qplan

pytest.importorskip("huggingface_hub", reason="needs the extra `hub`")

# The client's own, of its HTTP library's way to send bytes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def pushed(tmp_path, monkeypatch):
    """A pack on the stand-in of the hub; its commit."""
    with Hub() as hub:
        monkeypatch.chdir(tmp_path)
        log_in(monkeypatch, hub, tmp_path / "home")
        make_pack(tmp_path / "m.qpack")
        card = ("--license", "mit", "--base-model", "org/weights")
        result = run_qplan("push", tmp_path / "m.qpack", "org/name", *card)
        assert result.exit_code == 0, result.stderr
        yield hub.repositories["org/name"].branches["main"]


def test_a_pack_by_name_and_revision(pushed):
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    here = qdit4sr.load("m.qpack", backend="reference")
    there = qdit4sr.load(f"org/name@{pushed}", backend="reference")
    expected = qdit4sr.upscale(here, pixels, steps=1)
    assert np.array_equal(qdit4sr.upscale(there, pixels, steps=1), expected)


def test_the_command_takes_a_name(pushed, tmp_path):
    from typer.testing import CliRunner

    from runtime.cli.app import app

    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pyvips.Image.new_from_array(pixels).write_to_file(str(tmp_path / "a.png"))
    command = ["upscale", "a.png", "--pack", "org/name", "--steps", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "a_x4.png").is_file()
    again = CliRunner().invoke(app, [*command[:-3], "org/name@" + pushed, *command[-2:]])
    assert "skipped" in again.stderr  # the same pack, whatever it is called
