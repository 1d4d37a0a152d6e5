"""The CUDA backend on a real device: parity with plain torch, then times and memory.

    make gpu-check
    python -m benchmarks.gpu_check --out docs/results --date 2026-01-31

Needs torch, Triton, numpy and a CUDA device, no other package. Results are written as soon as they
are there, so a run that is cut off loses little:

    parity     every kernel against plain torch; one failure ends the run with exit code 1
    products   single layers against cuBLAS in bfloat16
    step       24 blocks of full width against eager and compiled bfloat16
    tune       only with --tune: refreshes the table of tile sizes that ships, first of all
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

PHASES = ("parity", "products", "step")


def main() -> int:
    """Run the phases; 0 when all comparisons hold, 1 otherwise or without a device."""
    arguments = _arguments()
    if not torch.cuda.is_available():
        print("gpu_check needs a CUDA device, and torch finds none", file=sys.stderr)
        return 1
    import triton  # noqa: PLC0415 not before a device is there

    device = torch.device("cuda", torch.cuda.current_device())
    name = torch.cuda.get_device_name(device)
    result: dict[str, Any] = {
        "device": name,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "date": arguments.date,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "command": " ".join(["python -m benchmarks.gpu_check", *sys.argv[1:]]),
    }
    began = time.monotonic()

    def note(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)

    def save() -> None:
        _write(arguments.out, name, result)

    from runtime.backends.triton.table_file import user_file  # noqa: PLC0415

    own = user_file()
    if own is not None and own.exists():
        note(f"tile sizes of {own} lie over those that ship; remove it to measure the latter")

    failed = 0
    with torch.inference_mode():
        if arguments.tune:
            _tune(device, arguments, result, began, note)
            save()
        for phase in arguments.phases:
            note(f"phase {phase}")
            if phase == "step":
                from benchmarks.gpu import step  # noqa: PLC0415

                result[phase] = step.measure(device, rounds=arguments.rounds, note=note)
                save()
                continue
            result[phase] = []
            for row in _rows(phase, device, arguments):
                result[phase].append(row)
                save()
            failed = sum(not row.get("passed", True) for row in result[phase])
            if failed:
                break
    from benchmarks.gpu.report import page  # noqa: PLC0415

    print(page(result))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu-<device>.json and .md")
    parser.add_argument("--date", help="written into the results")
    parser.add_argument("--quick", action="store_true", help="fewer shapes and rounds")
    parser.add_argument(
        "--phases",
        type=lambda text: tuple(text.split(",")),
        default=PHASES,
        help=f"which of {','.join(PHASES)}, separated by commas",
    )
    parser.add_argument(
        "--tune", action="store_true", help="refresh the table of tile sizes that ships"
    )
    parser.add_argument(
        "--tune-seconds", type=float, default=400, help="no further shape after this long"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.phases) - {*PHASES, ""})
    if unknown:
        parser.error(f"no such phase: {', '.join(unknown)}")
    arguments.rounds = 5 if arguments.quick else 30
    arguments.phases = tuple(phase for phase in arguments.phases if phase)
    return arguments


def _rows(
    phase: str, device: torch.device, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The rows of a phase that has many, as they come; each is printed."""
    if phase == "products":
        from benchmarks.gpu import products  # noqa: PLC0415 brings the kernels

        for row in products.measure(device, rounds=arguments.rounds, quick=arguments.quick):
            print(json.dumps(row), flush=True)
            yield row
        return
    from benchmarks.gpu.parity import checks  # noqa: PLC0415 brings the kernels

    for check in checks(device, quick=arguments.quick):
        print(f"{'PASS' if check.passed else 'FAIL'}  {check.name}: {check.detail}", flush=True)
        yield asdict(check)


def _tune(
    device: torch.device,
    arguments: argparse.Namespace,
    result: dict[str, Any],
    began: float,
    note: Any,
) -> None:
    from runtime.backends.triton.table_file import SHIPPED  # noqa: PLC0415
    from runtime.backends.triton.tune import tune  # noqa: PLC0415 brings the kernels

    result["tune"] = tune(
        device,
        table=SHIPPED,
        rounds=arguments.rounds,
        until=lambda: time.monotonic() - began > arguments.tune_seconds,
        note=note,
    )


def _write(folder: Path | None, device: str, result: dict[str, Any]) -> None:
    """Both files, where a folder was given."""
    if folder is None:
        return
    from benchmarks.gpu.report import page  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(page(result))


if __name__ == "__main__":
    sys.exit(main())
