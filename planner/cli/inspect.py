"""``qplan inspect`` and ``qplan verify``: what a pack says, and whether it is whole.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say, terminal
from planner.cli.options import Debug, Json, show_notes

INSPECT_EXAMPLE = "Example:  qplan inspect model.qpack --layer 'blocks.0.attn'"
VERIFY_EXAMPLE = "Example:  qplan verify model.qpack"

PackArgument = Annotated[
    Path, typer.Argument(metavar="PACK", help="A .qpack folder, or org/name[@revision] on the hub.")
]


def inspect(
    pack: PackArgument,
    *,
    layer: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only layers whose name matches.")
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a pack holds: sizes, settings, and every layer's bits, factors and error."""
    with exit_on_error(debug=debug):
        from artifacts.hub.fetch import local_pack
        from artifacts.pack.reader import open_pack
        from planner.inspect.inspection import layer_facts, select_layers, summary
        from planner.inspect.pack_tables import COLUMNS, render_pack

        opened = open_pack(local_pack(pack))
        names = select_layers(opened, layer)
        if json_output:
            layers = layer_facts(opened, names)
            print_json({"pack": str(pack), **summary(opened.manifest), "layers": layers})
        else:
            terminal(piped_width=COLUMNS).print(render_pack(opened, names))


def verify(pack: PackArgument, *, json_output: Json = False, debug: Debug = False) -> None:
    """Check every byte of a pack: hashes, shapes, scales, codes, and that the network is whole."""
    with exit_on_error(debug=debug):
        from artifacts.hub.fetch import local_pack
        from artifacts.pack.directory import checked_files, other_files
        from artifacts.pack.reader import verify_pack
        from planner.build.network_probe import check_network

        folder = local_pack(pack)
        opened = verify_pack(folder)
        check_network(opened.manifest)
        sizes = {name: opened.manifest.files[name].bytes for name in checked_files(opened.manifest)}
        ignored = other_files(folder)
        if json_output:
            print_json({"pack": str(pack), "ok": True, "files": sizes, "ignored": ignored})
        else:
            if ignored:
                show_notes([f"not part of the pack, and ignored: {', '.join(ignored)}"])
            say(f"{pack}: ok, {len(sizes)} files, {sum(sizes.values()):,} bytes")
