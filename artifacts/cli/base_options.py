"""Options that name the base model's files, spelled alike for both commands.

Nothing heavy is imported here: ``--help`` goes through this module.
"""

from pathlib import Path
from typing import Annotated

import typer

Base = Annotated[
    Path | None,
    typer.Option(
        help="Stable Diffusion 3.5 medium, for VAE, scheduler and text encoders: its folder, or a"
        " single file for the VAE. For VOSR a folder with vae and image_encoder."
    ),
]
ClipL = Annotated[
    Path | None, typer.Option("--clip-l", metavar="FILE", help="Text encoder CLIP-L as one file.")
]
ClipG = Annotated[
    Path | None, typer.Option("--clip-g", metavar="FILE", help="Text encoder CLIP-G as one file.")
]
T5xxl = Annotated[
    Path | None, typer.Option("--t5xxl", metavar="FILE", help="Text encoder T5-XXL as one file.")
]
Tokenizers = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Vocabularies for such files: a folder with tokenizer, tokenizer_2, tokenizer_3, or"
        " ComfyUI's comfy (default: those in --base).",
    ),
]
