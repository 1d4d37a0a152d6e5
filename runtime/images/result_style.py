"""What results are like: how large, in which format, under which names, with what of their inputs.

Nothing heavy is imported.
"""

from dataclasses import dataclass

from schemas.errors import UsageError

SCALES = (1, 2, 4)
"""Enlargements per side. The network restores at 4; the others resize its result."""
FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
"""Name of a format -> extension."""
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp", ".avif"})
"""Extensions of formats that have a quality."""


@dataclass(frozen=True)
class ResultStyle:
    """How results are written.

    Attributes:
        scale: sides of the result over those of the input.
        format: a key of `FORMATS`, or None: as ``-o`` names a file, else PNG.
        quality: 1 ... 100, of formats that lose something; None for the format's own.
        suffix: what the name of a result has behind its input's; None for ``_x4``, with the scale.
        strip: without the input's metadata and profile.
    """

    scale: int = 4
    format: str | None = None
    quality: int | None = None
    suffix: str | None = None
    strip: bool = False

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: there is no such scale, format or quality, or the suffix is no part of a
                name.
        """
        if self.scale not in SCALES:
            raise UsageError(f"--scale {self.scale}: 1, 2 or 4")
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(f"--format {self.format}: one of {', '.join(FORMATS)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: 1 to 100")
        if self.suffix is not None and (set(self.suffix) & set("/\\\0") or self.suffix == "."):
            raise UsageError(f"--suffix {self.suffix!r}: a part of a file's name, without a folder")

    @property
    def ending(self) -> str:
        """What a result's name has behind its input's stem, with the extension."""
        suffix = f"_x{self.scale}" if self.suffix is None else self.suffix
        return f"{suffix}{self.extension}"

    @property
    def extension(self) -> str:
        """Of results whose name nobody gave."""
        return FORMATS[self.format or "png"]

    def check_suffix(self, extension: str) -> None:
        """Check the format and quality against the extension that results have.

        Raises:
            UsageError: it is that of another format, or of one without a quality.
        """
        found = extension.lower()
        same = {".jpeg": ".jpg", ".tiff": ".tif"}.get(found, found)
        if self.format is not None and same != FORMATS[self.format]:
            raise UsageError(
                f"--format {self.format}, but -o names a {extension} file", hint="leave one out"
            )
        if self.quality is not None and found not in LOSSY_SUFFIXES:
            raise UsageError(
                f"--quality: {extension} files lose nothing and have none",
                hint="add --format jpg, webp or avif",
            )

    def record(self) -> dict[str, str | int | float | None]:
        """What differs from the defaults, as a result says of itself."""
        values = {"scale": self.scale, "quality": self.quality, "strip": self.strip or None}
        return {
            name: value
            for name, value in values.items()
            if value is not None and (name, value) != ("scale", 4)
        }
