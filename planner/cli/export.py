"""``qplan export``: a pack in another program's format.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say
from planner.cli.options import Debug, Json, console
from schemas.errors import UsageError

if TYPE_CHECKING:
    from planner.export.comfy import ExportedLayer

EXPORT_EXAMPLE = "Example:  qplan export model.qpack --format comfy -o dit4sr.safetensors"
FORMATS = ("comfy",)
BITS = ("auto", "8", "4")


def export(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder, or org/name.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="A .safetensors file.")],
    format_name: Annotated[
        str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")
    ] = "comfy",
    bits: Annotated[
        str, typer.Option(help="Of weights: 8, 4, or auto, as near the pack's as there is.")
    ] = "auto",
    activation_bits: Annotated[
        str,
        typer.Option(
            help="Of inputs of layers with 4-bit weights: 4, 8, or auto, the nearer to the pack's."
        ),
    ] = "auto",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The pack's source, to code its weights instead of the pack's."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer's error.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Write a pack's network as one file with ComfyUI's quantized layers.

    These have no factors, so weights are coded anew; how far they are from the source's or the
    pack's is printed.
    """
    with exit_on_error(debug=debug):
        for option, value, known in (
            ("format", format_name, FORMATS),
            ("bits", bits, BITS),
            ("activation-bits", activation_bits, BITS),
        ):
            if value not in known:
                raise UsageError(f"--{option} {value}: one of {', '.join(known)}")
        if out.suffix != ".safetensors" or out.is_dir() or not out.absolute().parent.is_dir():
            raise UsageError(f"{out}: a .safetensors file in a folder that exists is needed")
        if out.exists() and not force:
            raise UsageError(f"{out} exists", hint="choose another output, or use --force")
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.checkpoint.source import check_is_source
        from artifacts.hub.fetch import local_pack
        from artifacts.pack.reader import open_pack
        from planner.cli.progress import BarProgress
        from planner.export.comfy import export_comfy, mean_decibels

        opened = open_pack(local_pack(pack))
        if opened.path.resolve() in out.resolve().parents:
            raise UsageError(f"{out} lies in the pack that it is made from", hint="name another")
        source = None if checkpoint is None else open_checkpoint(checkpoint)
        if source is not None:
            check_is_source(source, opened.manifest)
        with BarProgress(enabled=not json_output) as progress:
            exported = export_comfy(
                opened,
                out,
                bits=bits,
                activation_bits=activation_bits,
                source=source,
                progress=progress,
            )
        size = out.stat().st_size
        mean = mean_decibels([layer.error_db for layer in exported])
        own = mean_decibels([layer.pack_error_db for layer in exported])
        if json_output:
            print_json(
                {
                    "output": str(out),
                    "bytes": size,
                    "mean_error_db": mean,
                    "mean_pack_error_db": own,
                    "layers": {layer.name: _facts(layer) for layer in exported},
                }
            )
            return
        if layers:
            console().print(_table(exported))
        counts = Counter(layer.layout for layer in exported)
        kinds = ", ".join(f"{count} {layout}" for layout, count in sorted(counts.items()))
        say(f"{out}: {size:,} bytes; layers: {kinds}")
        if mean is not None:
            against = "what the pack decodes to" if source is None else "the source"
            beside = "" if own is None else f"; the pack's own: {own:.2f} dB"
            say(f"signal to error of weights against {against}, mean: {mean:.2f} dB{beside}")


def _facts(layer: "ExportedLayer") -> dict[str, object]:
    return {
        "layout": layer.layout,
        "error_db": layer.error_db,
        "pack_error_db": layer.pack_error_db,
    }


def _table(exported: "list[ExportedLayer]") -> object:
    from rich.table import Table

    table = Table("layer", "layout", "error, dB", "the pack's, dB")
    for layer in exported:
        values = (layer.error_db, layer.pack_error_db)
        shown = ("" if value is None else f"{value:.2f}" for value in values)
        table.add_row(layer.name, layer.layout, *shown)
    return table
