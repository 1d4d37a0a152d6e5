"""Pictures that methods made, kept on disk so that an interrupted comparison goes on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from artifacts.files.whole_file import replacing
from benchmarks.demo_quality.methods import Method
from benchmarks.quality.store import key_of
from training.evaluation_set import Case


class Pictures:
    """Pictures in ``work``, in a folder per method that is named after all they depend on.

    Args:
        work: for the folders.
        cases: what is enlarged; the number of a case is the seed of its noise.
        set_name: of the cases.
    """

    def __init__(self, work: Path, cases: Sequence[Case], set_name: str) -> None:
        self.work = work
        self.cases = cases
        self.set_name = set_name

    def folder(self, method: Method) -> Path:
        """Where a method's pictures are."""
        key = key_of({"identity": method.identity, "set": self.set_name})
        return self.work / f"{method.name}.{key}"

    def path(self, method: Method, case: Case) -> Path:
        """Where one is, or will be."""
        return self.folder(method) / f"{case.name.replace('/', '_')}.png"

    def make(self, method: Method, say: Callable[[str], None]) -> None:
        """Make the pictures that are missing, in 8 bits as they would be saved."""
        missing = [
            (seed, case)
            for seed, case in enumerate(self.cases)
            if not self.path(method, case).is_file()
        ]
        if not missing:
            return
        self.folder(method).mkdir(parents=True, exist_ok=True)
        enlarge = method.open()
        for done, (seed, case) in enumerate(missing):
            if done % 12 == 0:
                say(f"{method.label}: {done} of {len(missing)}")
            picture = enlarge(case.small, seed)
            if picture.shape != case.truth.shape:
                raise RuntimeError(f"{method.label} made {tuple(picture.shape)} of {case.name}")
            with replacing(self.path(method, case)) as partial:
                to_image(picture).save(partial, "PNG")

    def of(self, method: Method) -> Iterator[Tensor]:
        """A method's pictures [1, 3, H, W] in 0 ... 1, case by case."""
        for case in self.cases:
            yield from_file(self.path(method, case))


def to_image(picture: Tensor) -> Image.Image:
    """A picture [1, 3, H, W] in 8 bits."""
    pixels = picture[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def from_file(path: Path) -> Tensor:
    """A saved picture [1, 3, H, W] in 0 ... 1."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
