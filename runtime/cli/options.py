"""Options that several ``qrun`` commands share, so that they are spelled and explained once.

Nothing heavy is imported here.
"""

from pathlib import Path
from typing import Annotated

import typer

from runtime.device_names import DEVICES, DTYPES

VARIANTS = ("q", "f", "r1")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

FullPrecision = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Run this unquantized checkpoint; VAE and prompts come from --pack or --base.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(help="Of the --full-precision network: q, f or r1 (default: the pack's, or q)."),
]
Base = Annotated[
    Path | None,
    typer.Option(help="Stable Diffusion 3.5 medium folder, for a pack without its own VAE."),
]
Steps = Annotated[int | None, typer.Option(help="Sampling steps (default: the pack's).")]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale; 1 takes half the time (default: the pack's)."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the starting noise.")]
Tile = Annotated[
    int | None, typer.Option(help="Side of a tile in latent pixels (default: the pack's).")
]
Overlap = Annotated[
    int | None, typer.Option(help="Overlap of tiles in latent pixels (default: the pack's).")
]
ColorFix = Annotated[str | None, typer.Option(help="adain, wavelet or none (default: the pack's).")]
ActivationBits = Annotated[
    int | None,
    typer.Option(
        help="Width of all activations, 1 to 8, or 16 for none (default: the bit grid's)."
    ),
]
Device = Annotated[str, typer.Option(help=", ".join(DEVICES))]
Dtype = Annotated[str, typer.Option(help=", ".join(DTYPES))]
Backend = Annotated[str, typer.Option(help="auto, or one that `qrun doctor` lists.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse inputs with more pixels than this.")]
