"""``qrun tune``: measure the kernels' tile sizes on the GPU of this machine.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say
from runtime.cli.options import Debug, Json
from runtime.cli.screen import Screen
from runtime.images.batch import check_writable
from schemas.errors import UsageError

if TYPE_CHECKING:
    import torch

TUNE_EXAMPLE = """
Examples:

qrun tune

qrun tune --list
"""


def tune(
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The table to write (default: your own, see --list)."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times of every configuration.")] = 30,
    seconds: Annotated[
        float, typer.Option(min=0, help="Begin no further shape after this long.")
    ] = 400,
    list_rows: Annotated[
        bool, typer.Option("--list", help="Measure nothing; show which row every shape takes.")
    ] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure which tile sizes make the Triton kernels fastest on this GPU, and remember them.

    Takes some minutes. Later runs of qrun use the result, until Triton is another version.
    """
    with exit_on_error(debug=debug):
        device = _device()
        if list_rows:
            _show_rows(device, json_output=json_output)
            return
        table = output or _own_table()
        _check_table(table)
        rows = _measure(device, table, rounds=rounds, seconds=seconds, quiet=json_output)
        if not rows:
            raise UsageError("no configuration of any kernel runs on this GPU; nothing is written")
        if json_output:
            print_json({"table": str(table), "rows": rows})


def _device() -> "torch.device":
    """The GPU that torch works on.

    Raises:
        UsageError: there is none, or the kernels cannot run on it.
    """
    import torch

    from runtime.backends.triton.device import missing_reason

    if not torch.cuda.is_available():
        raise UsageError(
            "tile sizes are measured on a CUDA device, and torch sees none here",
            hint="only the backends triton and triton-packed use them, on CUDA alone",
        )
    device = torch.device("cuda", torch.cuda.current_device())
    reason = missing_reason(device)
    if reason:
        raise UsageError(f"the Triton kernels cannot run on {device}: {reason}")
    return device


def _own_table() -> Path:
    from runtime.backends.triton.tile_table_file import user_file

    file = user_file()
    if file is None:
        raise UsageError("there is no home folder to keep a table in", hint="give --output")
    return file


def _check_table(table: Path) -> None:
    """Make sure, before minutes are spent, that the result can be written.

    Raises:
        UsageError: it cannot, or would replace a file that is something else.
    """
    from runtime.backends.triton.tile_table_file import read_file

    try:
        read_file(table)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{table}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(str(error), hint="delete it, or name another file") from error
    check_writable(table.parent)


def _measure(
    device: "torch.device", table: Path, *, rounds: int, seconds: float, quiet: bool
) -> dict[str, dict[str, int]]:
    """The rows that were written, after every shape."""
    from runtime.bench.tile_tuning import tune as measure

    began = time.monotonic()
    with Screen(1, quiet=quiet) as screen:
        try:
            rows = measure(
                device,
                table=table,
                rounds=rounds,
                until=lambda: time.monotonic() - began > seconds,
                note=screen.say,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"shapes measured until now are in {table}") from None
        if rows:
            screen.say(f"done: {len(rows)} rows in {table}")
    return {name: dict(row) for name, row in rows.items()}


def _show_rows(device: "torch.device", *, json_output: bool) -> None:
    """Print which row every kernel and shape of the network takes."""
    from runtime.backends.triton.device import capability
    from runtime.backends.triton.tile_table import read_table
    from runtime.backends.triton.tile_table_file import user_file
    from runtime.bench.tile_tuning import rows_in_force

    rows = rows_in_force(capability(device))
    table = read_table()
    file = user_file()
    if json_output:
        shown = {shape: {"row": row, "config": dict(table[row])} for shape, row in rows.items()}
        print_json({"table": None if file is None else str(file), "shapes": shown})
        return
    say(f"own table: {file}{'' if file and file.exists() else ' (none yet)'}")
    for shape, row in rows.items():
        config = " ".join(f"{setting}={value}" for setting, value in table[row].items())
        say(f"{shape}: {'its own' if row == shape else row}: {config}")
