"""Options that several ``qrun`` commands share, so that they are spelled and explained once.

Nothing heavy is imported here.
"""

from pathlib import Path
from typing import Annotated

import typer

from runtime.device_names import DEVICES, DTYPES, MEMORY

GRID = "grid"
"""What ``--activation-bits`` calls the pack's bit grid."""
MODEL, SAMPLING, MACHINE = "Model", "Sampling", "Machine"
"""Headings of ``--help``."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

FullPrecision = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Run this unquantized checkpoint; VAE and prompts come from --pack or --base.",
        rich_help_panel=MODEL,
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="CHECKPOINT",
        help="The pack's source: has the modulation layers that a pack with a table leaves out,"
        " for other --steps and prompts.",
        rich_help_panel=MODEL,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        help="Of the --full-precision network: q, f or r1 (default: as named, the pack's, or q).",
        rich_help_panel=MODEL,
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Sampling steps (default: the pack's).", rich_help_panel=SAMPLING)
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Guidance scale; 1 takes half the time (default: the pack's).",
        rich_help_panel=SAMPLING,
    ),
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        metavar="0...1",
        help="From inventive (0) to faithful (1): begins nearer the input, with fewer steps"
        " (default: 0).",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the starting noise.", rich_help_panel=SAMPLING)
]
Tile = Annotated[
    int | None,
    typer.Option(
        help="Side of a tile in latent pixels (default: the pack's).", rich_help_panel=SAMPLING
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        help="Overlap of tiles in latent pixels (default: the pack's).", rich_help_panel=SAMPLING
    ),
]
ColorFix = Annotated[
    str | None,
    typer.Option(help="adain, wavelet or none (default: the pack's).", rich_help_panel=SAMPLING),
]


def activation_bits(text: str) -> int | None:
    """What ``--activation-bits`` says: a number of bits, or None for the pack's grid.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text == GRID:
        return None
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r}: {GRID}, 1 to 8, or 16 for unquantized activations")
    return int(text)


ActivationBits = Annotated[
    int | None,
    typer.Option(
        parser=activation_bits,
        metavar="grid|BITS",
        help="Of all activations: 1 to 8, 16 for unquantized, or the pack's grid (default). 8 costs"
        " little or no time where 8-bit integers are multiplied: see `qrun doctor`.",
        rich_help_panel=SAMPLING,
    ),
]
Device = Annotated[str, typer.Option(help=", ".join(DEVICES), rich_help_panel=MACHINE)]
Dtype = Annotated[str, typer.Option(help=", ".join(DTYPES), rich_help_panel=MACHINE)]
Backend = Annotated[
    str, typer.Option(help="auto, or one that `qrun doctor` lists.", rich_help_panel=MACHINE)
]
Memory = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(MEMORY)}: whether weights stay packed on a GPU, which saves memory and"
        " takes time (default: where memory is short).",
        rich_help_panel=MACHINE,
    ),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse inputs with more pixels than this.")]
