"""The GPU check's own logic, on a machine without one: both parts are made up."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import ASKED, Measurement, Outcome, all_passed, page, read_outcomes

PASSED = Outcome("tests.a::test_one", "passed")
FAILED = Outcome("tests.a::test_two[4]", "failed", "assert 3 | 4")
SKIPPED = Outcome("tests.b::test_three", "skipped", "needs a CUDA device")
STEP = {name: {peer: asked + 0.05} for name, peer, asked in ASKED[1:]}
BENCH = {"sizes": [{"size_px": 512, "times_faster": STEP}]}
MEASURED = Measurement(0, BENCH, "Some GPU, threads: 1\n| table |\n")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([PASSED], True), ([PASSED, FAILED], False), ([PASSED, SKIPPED], False), ([], False)],
)
def test_a_skipped_test_fails_the_check_and_so_does_having_none(outcomes, expected):
    assert all_passed(outcomes) is expected


SUITE = """
import pytest
def test_good(): pass
def test_wrong(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="no device")
def test_left_out(): pass
@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_not_set_up(broken): pass
"""


def test_outcomes_are_those_of_pytest(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "test_damaged.py").write_text("import no_such_module")
    results = tmp_path / "results.xml"
    for file in ("test_suite.py", "test_damaged.py"):
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", f"--rootdir={tmp_path}",
             f"--junitxml={results}", file],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )  # fmt: skip
        found = read_outcomes(results)
        if file == "test_suite.py":
            assert [outcome.result for outcome in found] == [
                "passed",
                "failed",
                "skipped",
                "failed",
            ]
            assert found[0].name.endswith("test_suite::test_good")
            assert "one is not two" in found[1].detail
            assert found[2].detail == "no device"
            assert "no fixture" in found[3].detail
        else:
            assert [outcome.result for outcome in found] == ["failed"]
    assert read_outcomes(tmp_path / "absent.xml") == []


def test_without_a_device_it_fails_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_check, "run_tests", lambda: pytest.fail("it ran"))
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 1
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.fixture
def check(monkeypatch, tmp_path):
    """The whole command on a made-up device; gives exit code, both files, bench's options."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU 80GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(outcomes, measurement=None, options=()):
        asked = []

        def bench(options):
            asked.append(options)
            return measurement

        monkeypatch.setattr(gpu_check, "run_tests", lambda: outcomes)
        monkeypatch.setattr(gpu_check, "run_bench", bench)
        out = tmp_path / "results"
        monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(out), *options])
        code = gpu_check.main()
        content = json.loads((out / "gpu-some-gpu-80gb.json").read_text())
        return code, content, (out / "gpu-some-gpu-80gb.md").read_text(), asked

    return run


def test_the_report_holds_both_parts(check, capsys):
    code, content, text, asked = check([PASSED, PASSED], MEASURED, ["--", "--size", "512"])
    assert code == 0
    assert asked == [["--size", "512"]]
    assert content["tests"] == {"all": 2, "passed": 2, "others": []}
    assert content["bench"] == BENCH
    assert content["capability"] == "9.0"
    assert content["command"].startswith("python -m benchmarks.gpu_check --out ")
    assert content["command"].endswith(" -- --size 512")
    assert len(content["date"]) == len("2026-01-31")
    for part in (
        "# The CUDA backend on Some GPU 80GB",
        f"{content['date']}, compute capability 9.0, torch {torch.__version__}",
        content["command"],
        "2 of 2 tests pass.",
        "| 512 | triton bfloat16, compiled, graph | torch bfloat16 | 1.70 | 1.75 |",
        "| torch bfloat16, compiled, graph | 1.35 | unavailable |",
        "```\nSome GPU, threads: 1\n| table |\n```",
    ):
        assert part in text
    assert "own table" not in text
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("other", [FAILED, SKIPPED])
def test_nothing_is_measured_where_not_all_tests_pass(check, other):
    code, content, text, asked = check([PASSED, other])
    assert code == 1
    assert asked == []
    assert "bench" not in content
    assert content["tests"]["others"][0]["name"] == other.name
    assert "1 of 2 tests pass." in text
    detail = other.detail.replace("|", "\\|")
    assert f"| {other.result} | `{other.name}` | {detail} |" in text
    assert "Not measured, because not all tests pass." in text


def test_a_measurement_that_fails_fails_the_check(check):
    code, content, text, _ = check([PASSED], Measurement(5, None, ""))
    assert code == 1
    assert content["bench"] is None
    assert "`qrun bench` ended with exit code 5." in text


def test_a_table_of_the_users_own_is_told(check, tmp_path):
    own = tmp_path / "cache" / "qdit4sr" / "triton-table-2.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    _, content, text, _ = check([PASSED], MEASURED)
    assert content["own_tile_sizes"] is True
    assert "this machine's own table" in text


def test_the_tests_run_in_a_process_and_here_the_wide_ones_fail_it(monkeypatch):
    """The real command on the tests of the graphs: without a device some are skipped."""
    monkeypatch.setattr(gpu_check, "TESTS", ("tests/runtime/network/test_cuda_graphs.py",))
    outcomes = gpu_check.run_tests()
    results = {outcome.result for outcome in outcomes}
    if torch.cuda.is_available():
        assert results == {"passed"}
    else:
        assert results == {"passed", "skipped"}
        assert not all_passed(outcomes)
        skipped = [one for one in outcomes if one.result == "skipped"]
        assert all("needs a CUDA device" in one.detail for one in skipped)


def test_an_error_of_pytest_itself_is_a_failure(monkeypatch):
    monkeypatch.setattr(gpu_check, "TESTS", ("tests/no_such_folder",))
    assert not all_passed(gpu_check.run_tests())


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure for minutes")
def test_the_measurements_error_is_its_exit_code():
    measurement = gpu_check.run_bench([])
    assert measurement.exit_code == 2
    assert measurement.content is None


def test_a_page_without_a_measurement_is_whole():
    report = {
        "device": "Some GPU",
        "capability": "9.0",
        "date": "2026-01-31",
        "torch": "2",
        "triton": "3",
        "command": "python -m benchmarks.gpu_check",
        "own_tile_sizes": False,
        "tests": {"all": 1, "passed": 1, "others": []},
    }
    assert page(report, None).startswith("# The CUDA backend on Some GPU\n\n2026-01-31, compute")
