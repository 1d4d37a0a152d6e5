"""Options that say which results ``qrun upscale`` writes, and how.

Nothing heavy is imported here.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from runtime.images.result_style import ResultStyle


@dataclass(frozen=True)
class ResultOptions:
    """What results are like."""

    panel: ClassVar[str] = "Results"

    scale: Annotated[
        int,
        typer.Option(help="Enlargement: 4, or 2 or 1 for the restored picture at that size."),
    ] = 4
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="png, jpg, webp, tiff or avif (default: as -o is named, else png)."
        ),
    ] = None
    quality: Annotated[
        int | None,
        typer.Option(help="Of jpg, webp and avif, 1 to 100 (default: 95, 92 and 80)."),
    ] = None
    suffix: Annotated[
        str | None,
        typer.Option(help="What follows the input's name in the result's (default: _x4)."),
    ] = None
    strip: Annotated[
        bool,
        typer.Option("--strip", help="Leave out the input's EXIF, XMP, density and profile."),
    ] = False

    @property
    def style(self) -> ResultStyle:
        """As `runtime.images` takes them."""
        return ResultStyle(self.scale, self.file_format, self.quality, self.suffix, self.strip)
