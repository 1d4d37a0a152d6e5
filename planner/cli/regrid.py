"""``qplan regrid``: another bit grid for a finished pack.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say, tell
from planner.cli.options import Debug, Json
from schemas.errors import UsageError

REGRID_EXAMPLE = """
Examples:

qplan regrid model.qpack --set 'blocks.3.ff=A8' -o finer.qpack

qplan regrid model.qpack --grid edited.json --checkpoint dit4sr/ -o edited.qpack
"""


def regrid(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")],
    *,
    grid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An edited copy of the pack's bit_grid.json."),
    ] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="REGEX=BITS",
            help="New bits of matching layers: 8, W6, A8 or W6A4; 16 for unquantized. Repeatable.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The new pack.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The pack's source; needed where weight bits change."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The pack's calibration, for recipes that smooth."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older pack.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Give a pack another bit grid, and seal it again.

    Activation bits take effect at once. Layers whose weight bits change are quantized anew from the
    checkpoint; all others keep their bytes.
    """
    with exit_on_error(debug=debug):
        from planner.regrid.edits import edited, parse_edit, read_grid

        changes = [parse_edit(text) for text in edits or []]
        if grid is None and not changes:
            raise UsageError("nothing to change", hint="give --grid or --set")
        asked = None if grid is None else read_grid(grid)

        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.files.output_lock import output_lock
        from artifacts.pack.reader import open_pack
        from artifacts.pack.writer import check_output, remove_stale_partials
        from planner.build.left_over import cleared_when_refused
        from planner.calibrate.calibration_file import read_calibration
        from planner.cli.progress import BarProgress
        from planner.inspect.inspection import summary
        from planner.regrid.regrid import regrid as write_regridded

        with cleared_when_refused(out):
            check_output(out, force=force)
        # With a grid of the user's, the pack's own may have been edited in its place.
        opened = open_pack(pack, verify_hashes=True, own_grid=asked is None)
        wanted = edited(asked or opened.bit_grid, changes)
        source = None if checkpoint is None else open_checkpoint(checkpoint)
        known = None if calibration is None else read_calibration(calibration)
        with output_lock(out), BarProgress(enabled=not json_output) as progress:
            remove_stale_partials(out)
            result = write_regridded(
                opened,
                out,
                wanted,
                checkpoint=source,
                calibration=known,
                force=force,
                progress=progress,
            )
        for warning in result.warnings:
            tell(f"warning: {warning}")
        if json_output:
            facts = {"pack": str(out), "requantized": list(result.requantized)}
            print_json({**facts, "warnings": result.warnings, **summary(result.after)})
            return
        before, after = result.before, result.after
        say(f"{out}: {len(result.requantized)} of {len(after.layers)} layers quantized anew")
        for what, old, new, target in (
            (
                "mean weight bits",
                before.reached.weight_bits,
                after.reached.weight_bits,
                after.target.weight_bits,
            ),
            (
                "mean activation bits",
                before.reached.activation_bits,
                after.reached.activation_bits,
                after.target.activation_bits,
            ),
        ):
            say(f"  {what}: {old:.4f} -> {new:.4f} (target {target:g})")
        sizes = before.transformer_bytes.pack, after.transformer_bytes.pack
        say(f"  transformer: {sizes[0]:,} -> {sizes[1]:,} bytes")
