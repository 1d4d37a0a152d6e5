"""Second moments on disk: a file for every group of layers that was measured at once.

Those of DiT4SR are 10 GB, more than a build should hold; a layer reads its own when its turn comes.
A file whose making was interrupted has the sums over the pictures that were finished.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from artifacts.files.safetensors_io import Header
from artifacts.files.sealed_tensors import read_sealed, write_sealed
from planner.build.work_folder import told_of_disk_errors
from planner.settings import BuildSettings
from schemas.errors import PackError, UsageError


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """``E[x xᵀ]`` of layers' inputs, as they are before smoothing and rotation.

    Attributes:
        digest: of all that they depend on.
        owners: layer -> the layer under whose name its moment is kept: layers that read the same
            tensor share one.
        files: header of the file that holds an owner's moment.
    """

    digest: str
    owners: Mapping[str, str]
    files: Mapping[str, Header]

    def of(self, layer: str) -> Tensor:
        """A layer's moment, float32 [in, in], up to a factor; on the CPU.

        Raises:
            KeyError: it was not measured.
            PackError: the file changed since it was measured.
        """
        owner = self.owners[layer]
        return self.files[owner].read(owner)


def used_for(settings: BuildSettings) -> str:
    """What ``settings`` need second moments for, in words."""
    uses = {
        "rounding by GPTQ": settings.rounds_by_moments,
        "fitting factors to outputs": settings.fits_factors_to_outputs,
        "smoothing": settings.balances,
    }
    return " and ".join(use for use, wanted in uses.items() if wanted)


def without_moments(settings: BuildSettings) -> str:
    """The options that make do without them."""
    options = {
        "--weight-rounding nearest": settings.rounds_by_moments,
        "--factor-fit weight": settings.fits_factors_to_outputs,
        "--smoothing none": settings.balances,
    }
    return " ".join(option for option, wanted in options.items() if wanted)


def check_moments(
    moments: SecondMoments | None, layers: Sequence[str], settings: BuildSettings
) -> None:
    """Make sure that there is what ``settings`` round, fit or balance ``layers`` by.

    Raises:
        UsageError: there is not.
    """
    if not settings.uses_moments:
        return
    known = {} if moments is None else moments.owners
    missing = [name for name in layers if name not in known]
    if missing:
        raise UsageError(
            f"{used_for(settings)} needs second moments of inputs, and {len(missing)} layers have"
            " none",
            hint=f"give --base, or {without_moments(settings)}",
        )


@dataclass(frozen=True)
class KeptMoments:
    """The files of one measurement.

    Attributes:
        folder: made when the first picture is finished.
        subject: everything that the moments depend on, but for the layers of a file.
    """

    folder: Path
    subject: str

    @property
    def digest(self) -> str:
        """Stands for the subject."""
        return hashlib.sha256(self.subject.encode()).hexdigest()

    def find(
        self, number: int, layers: Sequence[str]
    ) -> tuple[int, dict[str, Tensor], Header | None]:
        """Over how many pictures a group's sums are finished, these sums, and their file.

        Nothing, where the file is not there, damaged, or of something else.
        """
        try:
            found = read_sealed(self._file(number), self._subject_of(layers))
        except PackError:
            return 0, {}, None
        return int(found.record), found.tensors, found.header

    def keep(
        self, number: int, layers: Sequence[str], pictures: int, sums: Mapping[str, Tensor]
    ) -> Header:
        """Keep a group's sums over its first pictures.

        Raises:
            ResourceError: the disk is full or fails.
        """
        with told_of_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            return write_sealed(
                self._file(number), self._subject_of(layers), sums, record=str(pictures)
            )

    def _file(self, number: int) -> Path:
        return self.folder / f"moments-{number:03d}.safetensors"

    def _subject_of(self, layers: Sequence[str]) -> str:
        return f"{self.subject}\nlayers {' '.join(layers)}"
