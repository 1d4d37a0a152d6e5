"""The option ``--version`` of both commands."""

from importlib.metadata import version
from typing import Annotated

import typer


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version("qdit4sr"))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Print the version and stop.",
        callback=_print_version,
        is_eager=True,
    ),
]
