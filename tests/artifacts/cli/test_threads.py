import os
import subprocess
import sys

import pytest

from artifacts.cli import threads
from artifacts.cli.threads import SPINS, granted_processors, prepare_threads


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(threads, "_seen_processors", lambda: 16)


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "1600000 100000\n"}, None),
        ({"cpu.max": "garbage\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_processors(tmp_path, sixteen_cores, files, granted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert granted_processors(tmp_path) == granted

    environment = {}
    prepare_threads(environment, tmp_path)
    assert environment.get("OMP_NUM_THREADS") == (granted and str(granted))


def test_the_users_own_settings_stay(tmp_path, sixteen_cores):
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        environment = {"OMP_NUM_THREADS": "5", **own}
        prepare_threads(environment, tmp_path)
        assert environment == {"OMP_NUM_THREADS": "5", **own}


@pytest.mark.parametrize("command", ["planner", "runtime"])
def test_commands_set_it_before_torch_is_loaded(command):
    script = f"""
import os, sys
from {command}.cli.main import main
sys.argv = ["x", "--version"]
assert "torch" not in sys.modules
try:
    main()
except SystemExit:
    print(os.environ["GOMP_SPINCOUNT"])
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT",)}
    environment.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == SPINS
