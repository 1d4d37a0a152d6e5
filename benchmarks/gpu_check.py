"""The CUDA backend on a real device: its tests, then its times and memory, in one report.

    make gpu-check
    python -m benchmarks.gpu_check --out docs/results -- --size 512 --size 1024

Needs a CUDA device, torch with Triton, numpy, safetensors, pydantic, typer and pytest; neither
diffusers nor pyvips nor scipy. What stands behind ``--`` goes to ``qrun bench --device cuda``.

Ends with exit code 1 without a device, when a test does not pass or is skipped, and when the
measurement ends with an error. Both files are written after the tests and again after the
measurement, so that a run that is cut off loses little.
"""

import argparse
import datetime
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from runtime.backends.triton.tile_table import triton_version
from runtime.backends.triton.tile_table_file import user_file

ROOT = Path(__file__).parents[1]
TESTS = ("tests/runtime/backends/triton", "tests/runtime/network/test_cuda_graphs.py")
TEST_PROCESSES = 12
ASKED = (
    ("triton bfloat16, compiled, graph", "torch bfloat16, compiled, graph", 1.35),
    ("triton bfloat16, compiled, graph", "torch bfloat16", 1.7),
    ("triton-packed bfloat16, compiled, graph", "torch bfloat16, compiled, graph", 1.0),
)
"""Candidate, peer, and how many times faster than it the candidate's whole step should be."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test.

    Attributes:
        name: module and test.
        result: passed, failed or skipped.
        detail: why, in one line; empty for a test that passed.
    """

    name: str
    result: str
    detail: str = ""


@dataclass(frozen=True)
class Measurement:
    """What ``qrun bench`` returned.

    Attributes:
        exit_code: its own.
        content: its JSON object; None without one.
        tables: what it printed.
    """

    exit_code: int
    content: dict[str, Any] | None
    tables: str


def main() -> int:
    """Run both parts; 0 when all is well, 1 otherwise."""
    arguments = _arguments()
    if not torch.cuda.is_available():
        print("gpu_check needs a CUDA device, and torch finds none", file=sys.stderr)
        return 1
    report = _heading()
    outcomes = run_tests()
    report["tests"] = _tests_json(outcomes)
    _write(arguments.out, report, None)
    measurement = None
    if all_passed(outcomes):  # times of kernels that are wrong say nothing
        measurement = run_bench(arguments.bench)
        report["bench"] = measurement.content
        _write(arguments.out, report, measurement)
    print(page(report, measurement))
    return 0 if measurement is not None and measurement.exit_code == 0 else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu-<device>.json and .md")
    parser.add_argument("bench", nargs="*", help="options for `qrun bench`, behind --")
    return parser.parse_args()


def _heading() -> dict[str, Any]:
    """What is measured, where and when."""
    device = torch.device("cuda", torch.cuda.current_device())
    own = user_file()
    return {
        "device": torch.cuda.get_device_name(device),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "triton": triton_version(),
        "command": shlex.join(["python", "-m", "benchmarks.gpu_check", *sys.argv[1:]]),
        "own_tile_sizes": own is not None and own.exists(),
    }


def run_tests() -> list[Outcome]:
    """Run the tests of the kernels and of CUDA graphs in processes of their own.

    Nearly all of their time is compilation, so several share the device where pytest-xdist is.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        # Warnings of a Triton that is not ours must not look like wrong kernels.
        options = ["-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={results}"]
        if importlib.util.find_spec("xdist") is not None:
            options += ["-n", str(min(TEST_PROCESSES, os.cpu_count() or 1))]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *TESTS], cwd=ROOT, check=False
        )
        outcomes = read_outcomes(results)
    if done.returncode and all_passed(outcomes):
        outcomes.append(Outcome("pytest", "failed", f"exit code {done.returncode}"))
    return outcomes


def read_outcomes(results: Path) -> list[Outcome]:
    """The tests in a JUnit file, in their order; none where there is no file."""
    if not results.exists():
        return []
    outcomes = []
    for case in ElementTree.parse(results).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        result, detail = "passed", ""
        for kind, called in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            found = case.find(kind)
            if found is not None:
                lines = (found.get("message") or found.text or "").strip().splitlines()
                result, detail = called, lines[0] if lines else ""
        outcomes.append(Outcome(name, result, detail))
    return outcomes


def all_passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether there are tests, and every one ran and passed: a skipped one has shown nothing."""
    return bool(outcomes) and all(outcome.result == "passed" for outcome in outcomes)


def run_bench(options: Sequence[str]) -> Measurement:
    """Run ``qrun bench --device cuda`` in a process of its own; its progress is shown."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.json"
        command = ["bench", "--device", "cuda", "-o", str(file), *options]
        done = subprocess.run(
            [sys.executable, "-c", "from runtime.cli.main import main; main()", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return Measurement(done.returncode, content, done.stdout)


def reached(bench: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked of the whole step and what it reaches, for every size; see `ASKED`."""
    rows = []
    for size in bench["sizes"]:
        for name, peer, asked in ASKED:
            ratio = size["times_faster"].get(name, {}).get(peer)
            row = {"size_px": size["size_px"], "candidate": name, "peer": peer, "asked": asked}
            rows.append({**row, "reached": ratio})
    return rows


def page(report: Mapping[str, Any], measurement: Measurement | None) -> str:
    """The report as Markdown."""
    lines = [
        f"# The CUDA backend on {report['device']}",
        "",
        f"{report['date']}, compute capability {report['capability']}, torch {report['torch']},"
        f" Triton {report['triton']}:",
        "",
        "```",
        report["command"],
        "```",
        "",
    ]
    if report["own_tile_sizes"]:
        lines += ["Tile sizes of this machine's own table lie over those that ship.", ""]
    tests = report["tests"]
    lines += ["## Tests", "", f"{tests['passed']} of {tests['all']} tests pass.", ""]
    if tests["others"]:
        lines += ["| | test | |", "|---|---|---|"]
        for row in tests["others"]:
            detail = row["detail"].replace("|", "\\|")
            lines.append(f"| {row['result']} | `{row['name']}` | {detail} |")
        lines.append("")
    lines += ["## Times and memory", ""]
    if measurement is None:
        lines.append("Not measured, because not all tests pass.")
    elif measurement.exit_code or measurement.content is None:
        lines.append(f"`qrun bench` ended with exit code {measurement.exit_code}.")
    else:
        lines += ["| size | whole step | against | asked | reached |", "|---|---|---|---|---|"]
        for row in reached(measurement.content):
            ratio = "unavailable" if row["reached"] is None else f"{row['reached']:.2f}"
            lines.append(
                f"| {row['size_px']} | {row['candidate']} | {row['peer']} | {row['asked']:.2f}"
                f" | {ratio} |"
            )
        lines += ["", "```", measurement.tables.strip("\n"), "```"]
    return "\n".join(lines) + "\n"


def _tests_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    others = [asdict(outcome) for outcome in outcomes if outcome.result != "passed"]
    return {"all": len(outcomes), "passed": len(outcomes) - len(others), "others": others}


def _write(folder: Path | None, report: Mapping[str, Any], measurement: Measurement | None) -> None:
    """Both files, where a folder was given."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", report["device"].lower()).strip("-")
    (folder / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / f"{stem}.md").write_text(page(report, measurement), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
