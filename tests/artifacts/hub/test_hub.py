"""Packs to a stand-in of the hub and back, through the commands.

One test runs them as processes of their own, the others in this one, where what the hub's client
reads from the environment when it is imported is set by hand.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from artifacts.pack.reader import open_pack
from planner.build.model_card import model_card
from tests.artifacts.hub.stand_in import Hub, log_in
from tests.artifacts.make_pack import make_pack
from tests.planner.run_qplan import assert_fails, run_qplan

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra `hub`")

# The client's own, of its HTTP library's way to send bytes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ROOT = Path(__file__).parents[3]
CARD = ("--license", "apache-2.0", "--base-model", "org/weights")


@pytest.fixture
def hub():
    with Hub() as server:
        yield server


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack")
    return tmp_path / "m.qpack"


@pytest.fixture
def command(tmp_path, hub):
    """Runs Python against the stand-in, logged in, with empty caches."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    base = kept | {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }

    def run(main, *arguments, **environment):
        code = f"from {main} import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=tmp_path,
            env=base | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    run.home = home
    return run


@pytest.fixture
def home(tmp_path, monkeypatch, hub):
    """Logged in to the stand-in, in this process, with empty caches."""
    monkeypatch.chdir(tmp_path)
    log_in(monkeypatch, hub, tmp_path / "home")
    return tmp_path / "home"


def test_a_pack_goes_there_and_comes_back(command, hub, pack, tmp_path):
    (pack / "mine.txt").write_text("not of the pack")
    pushed = command("planner.cli.main", "push", pack, "org/name", "--private", *CARD, "--json")
    assert pushed.returncode == 0, pushed.stderr
    facts = json.loads(pushed.stdout)
    assert facts["commit"] == hub.repositories["org/name"].branches["main"]
    assert hub.repositories["org/name"].private
    stored = hub.files("org/name")
    manifest = open_pack(pack).manifest
    assert set(stored) == {*manifest.files, "manifest.json", "README.md", ".gitattributes"}
    assert all(stored[name] == (pack / name).read_bytes() for name in manifest.files)
    front = yaml.safe_load(stored["README.md"].decode().split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "org/weights"
    assert front["base_model_relation"] == "quantized"

    found = command("planner.cli.main", "verify", "org/name", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["ok"]
    (snapshot,) = (command.home / ".cache/huggingface/hub/models--org--name/snapshots").iterdir()
    assert snapshot.name == facts["commit"]
    assert (snapshot / "transformer.safetensors").is_symlink()
    assert not (snapshot / ".gitattributes").exists()

    hub.requests.clear()
    offline = command("planner.cli.main", "inspect", "org/name", "--json", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert hub.requests == []


def test_revisions(home, hub, tmp_path):
    for seed, branch in ((0, "first"), (1, "second")):
        path = tmp_path / f"{branch}.qpack"
        make_pack(path, seed=seed, modulation="weights")
        result = run_qplan("push", path, "org/name", "--revision", branch, *CARD)
        assert result.exit_code == 0, result.stderr
    commit = hub.repositories["org/name"].branches["first"]
    for revision, branch in (("first", "first"), ("second", "second"), (commit, "first")):
        found = run_qplan("diff", f"org/name@{revision}", f"{branch}.qpack", "--json")
        assert found.exit_code == 0, found.stderr
        assert json.loads(found.stdout)["settings"] == {}
    absent = run_qplan("verify", "org/name@third")
    assert absent.exit_code == 3
    assert "no such revision" in absent.stderr


def test_a_second_pack_takes_the_place_of_the_first(home, hub, tmp_path):
    make_pack(tmp_path / "a.qpack")
    make_pack(tmp_path / "b.qpack", companions=False, prompts=False)
    for name in ("a.qpack", "b.qpack"):
        assert run_qplan("push", name, "org/name", *CARD).exit_code == 0
    assert not [name for name in hub.files("org/name") if name.startswith("vae/")]
    assert run_qplan("verify", "org/name").exit_code == 0


def test_what_comes_damaged_is_refused(home, hub, pack):
    assert run_qplan("push", pack, "org/name", *CARD).exit_code == 0
    files = hub.files("org/name")
    changed = bytearray(files["transformer.safetensors"])
    changed[-1] ^= 1
    files["transformer.safetensors"] = bytes(changed)
    found = run_qplan("inspect", "org/name")
    assert found.exit_code == 3
    assert "SHA-256" in found.stderr
    assert "delete" in found.stderr


def test_hashes_are_compared_once(home, hub, pack):
    assert run_qplan("push", pack, "org/name", *CARD).exit_code == 0
    assert run_qplan("inspect", "org/name").exit_code == 0
    (marker,) = (home / "qdit4sr/verified").iterdir()
    assert run_qplan("inspect", "org/name").exit_code == 0
    assert [marker] == list(marker.parent.iterdir())
    blob = next(p for p in (home / "hub").rglob("transformer.safetensors")).resolve()
    changed = bytearray(blob.read_bytes())
    changed[-1] ^= 1
    blob.write_bytes(changed)
    assert run_qplan("inspect", "org/name").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("push", "m.qpack", "org/name"), 2, "names no license"),
        (("push", "m.qpack", "name", *CARD), 2, "org/name"),
        (("push", "m.qpack", "org/n", *CARD, "--token-from-env", "ABSENT"), 2, "not set"),
        (("push", "absent.qpack", "org/name", *CARD), 3, "absent.qpack"),
        (("verify", "org/absent"), 3, "no such repository"),
    ],
)
def test_errors(home, pack, arguments, code, words):
    assert_fails(run_qplan(*arguments), code, words)


def test_a_hub_that_cannot_be_reached(home, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert_fails(run_qplan("verify", "org/absent"), 5, "hub")


def test_a_token_from_a_variable_of_ones_own(home, hub, pack, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    monkeypatch.setenv("MINE", hub.token)
    push = ("push", pack, "org/name", *CARD)
    assert_fails(run_qplan(*push), 2, "refuses")
    found = run_qplan(*push, "--token-from-env", "MINE")
    assert found.exit_code == 0, found.stderr
    assert hub.token not in found.output


def test_a_repository_that_is_no_pack(home, hub, pack):
    assert run_qplan("push", pack, "org/name", *CARD).exit_code == 0
    del hub.files("org/name")["manifest.json"]
    assert_fails(run_qplan("verify", "org/name"), 3, "manifest.json")


def test_the_card_of_a_build_has_front_matter(pack, monkeypatch):
    front = yaml.safe_load(model_card(open_pack(pack).manifest).split("---")[1])
    assert front["license"] == "other"
    assert front["pipeline_tag"] == "image-to-image"
    assert "base_model" not in front  # nobody knows whose weights a network of this size has
