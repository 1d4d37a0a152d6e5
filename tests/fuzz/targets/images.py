"""Pictures: read, enlarged, written in some format, and read again."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from runtime.images.folder import OUTPUT_SUFFIXES
from runtime.images.image_io import LoadedImage, read_header, read_image, write_image
from runtime.images.resizing import resize
from schemas.errors import ImageError, QPackError
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.chunks import mutate_png_chunk, mutate_tiff_entry
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.targets.pictures import pictures

MAX_PIXELS = 1_000_000
"""As ``--max-pixels`` would say: by default a picture may have a hundred times as many."""
MOST_ENLARGED = 20_000
"""Pixels of the largest picture that is enlarged and written again."""


@dataclass(frozen=True)
class Outcome:
    """What reading a picture gave: an image, or the class of the error."""

    image: LoadedImage | None
    error: type[QPackError] | None

    def equals(self, image: LoadedImage) -> bool:
        """Whether the pixels are the same."""
        known = self.image
        return known is not None and same(known.rgb, image.rgb) and same(known.alpha, image.alpha)


class Images:
    """Mutated pictures of every format and kind that is read."""

    name = "images"
    errors = (ImageError,)

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder = folder
        self._pictures = pictures()
        self._suffixes = sorted(OUTPUT_SUFFIXES)
        self._known: dict[str, Outcome] = {}
        for name, content in self._pictures.items():
            file = folder / name
            file.write_bytes(content)
            try:
                self._known[name] = Outcome(read_image(file, max_pixels=MAX_PIXELS), None)
            except ImageError:
                self._known[name] = Outcome(None, ImageError)
            file.unlink()
        for suffix in self._suffixes:
            self._write_and_read(self._known["rgba.png"].image, suffix)

    def make(self, rng: Random, index: int) -> Case:
        name = list(self._pictures)[index % len(self._pictures)]
        content = self._pictures[name]
        what, mutate = Path(name).suffix, mutate_bytes
        if name.endswith(".png") and rng.random() < 0.6:
            what, mutate = "chunks of .png", mutate_png_chunk
        elif name.endswith(".tif") and rng.random() < 0.6:
            what, mutate = "entries of .tif", mutate_tiff_entry
        # The content decides, not the name: sometimes they differ.
        stored = name if rng.random() < 0.9 else f"a{rng.choice(self._suffixes)}"
        option = f"{name} {rng.choice(self._suffixes)}"
        return Case(what, {stored: mutate(content, rng)}, option)

    def run(self, case: Case) -> str:
        name, suffix = case.option.split()
        ((stored, content),) = case.files.items()
        file = self._folder / stored
        file.write_bytes(content)
        try:
            header = read_header(file, max_pixels=MAX_PIXELS)
            image = read_image(file, max_pixels=MAX_PIXELS)
        finally:
            file.unlink()
        if self._known[name].equals(image):
            return EQUAL
        height, width = image.rgb.shape[-2:]
        if {height, width} != {header.height, header.width}:
            raise WrongResultError(f"{width} x {height} px, the header says {header}")
        _check(image)
        if height * width <= MOST_ENLARGED:
            self._write_and_read(image, suffix)
        return CHANGED

    def _write_and_read(self, image: LoadedImage | None, suffix: str) -> None:
        """Enlarge, write, and read again.

        Raises:
            WrongResultError: what was written cannot be read, or has another size.
        """
        assert image is not None
        size = tuple(4 * side for side in image.rgb.shape[-2:])
        alpha = None if image.alpha is None else resize(image.alpha, size)
        output = self._folder / f"out{suffix}"
        write_image(output, resize(image.rgb, size), image, alpha=alpha)
        try:
            again = read_image(output, max_pixels=100 * MAX_PIXELS)
        except ImageError as error:
            raise WrongResultError(f"what was written cannot be read: {error}") from error
        if tuple(again.rgb.shape[-2:]) != size:
            raise WrongResultError(f"{size} was written, {tuple(again.rgb.shape)} read")
        output.unlink()


def same(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether both are absent, or equal in shape and values."""
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.equal(first, second)


def _check(image: LoadedImage) -> None:
    """Check that the values are those that an image may have.

    Raises:
        WrongResultError: they are not, or a note would trouble a terminal.
    """
    if image.rgb.shape[1] != 3 or image.rgb.dtype != torch.float32:
        raise WrongResultError(f"{image.rgb.dtype} {tuple(image.rgb.shape)}")
    for what, values in (("rgb", image.rgb), ("alpha", image.alpha)):
        if values is None:
            continue
        low, high = values.aminmax()
        if not (low >= 0 and high <= 1):
            raise WrongResultError(f"{what} from {float(low)} to {float(high)}")
        if values.shape[-2:] != image.rgb.shape[-2:]:
            raise WrongResultError(f"{what} has shape {tuple(values.shape)}")
    for note in image.notes:
        if not note.isprintable():
            raise WrongResultError(f"note {note!r}")
