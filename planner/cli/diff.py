"""``qplan diff``: in what two packs differ.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json
from planner.cli.options import Debug, Json, console

DIFF_EXAMPLE = "Example:  qplan diff w4a4.qpack w3a4.qpack --layer 'blocks.0.attn'"


def diff(
    first: Annotated[Path, typer.Argument(metavar="BEFORE", help="A .qpack folder.")],
    second: Annotated[Path, typer.Argument(metavar="AFTER", help="Another one.")],
    *,
    layer: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Also list matching layers that differ; . for all."),
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show in what two packs differ: settings, sizes, bits and decoding errors.

    Tensors are compared by the hashes of their files alone. The exit code is 0 whether the packs
    differ or not.
    """
    with exit_on_error(debug=debug):
        from artifacts.hub.fetch import local_pack
        from artifacts.pack.reader import open_pack
        from planner.inspect.pack_diff import compare, layer_changes, render_diff, select_from_both

        packs = open_pack(local_pack(first)), open_pack(local_pack(second))
        rows = None
        if layer is not None:
            rows = layer_changes(*packs, select_from_both(*packs, layer))
        found = compare(*packs)
        if json_output:
            layers = {} if rows is None else {"changed_layers": rows}
            print_json({"before": str(first), "after": str(second), **found, **layers})
        else:
            console().print(render_diff(*packs, found, rows))
