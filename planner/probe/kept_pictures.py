"""What single pictures of a probe gave, kept beside its output until that is there.

A picture of the published network takes hours on a CPU. A probe that is interrupted goes on behind
the last finished one, to the same numbers; what is damaged, or of another probe, is made anew.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from artifacts.files.output_lock import hidden_beside
from artifacts.files.sealed_tensors import read_sealed, write_sealed
from planner.build.work_folder import told_of_disk_errors
from planner.probe.image_probe import Sensitivities
from schemas.errors import PackError


def kept_folder(output: Path) -> Path:
    """Where an unfinished probe for ``output`` keeps its pictures."""
    return hidden_beside(output, "probe")


@dataclass(frozen=True)
class KeptPictures:
    """The finished pictures of one probe.

    Attributes:
        folder: made when a picture is finished.
        subject: everything that a picture's result depends on, but for its number.
    """

    folder: Path
    subject: str

    def find(self, number: int) -> Sensitivities | None:
        """What a picture gave; None where that is not there, damaged, or of another probe."""
        try:
            tensors = read_sealed(self._file(number), self._subject_of(number)).tensors
        except PackError:
            return None
        return Sensitivities(**tensors)

    def keep(self, number: int, found: Sensitivities) -> None:
        """Keep what a picture gave.

        Raises:
            ResourceError: the disk is full or fails.
        """
        tensors = {part: getattr(found, part) for part in Sensitivities.__dataclass_fields__}
        with told_of_disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            write_sealed(self._file(number), self._subject_of(number), tensors)

    def _file(self, number: int) -> Path:
        return self.folder / f"picture-{number:05d}.safetensors"

    def _subject_of(self, number: int) -> str:
        return f"{self.subject}\npicture {number}"


def remove_kept(output: Path) -> None:
    """Remove what a probe for ``output`` kept."""
    shutil.rmtree(kept_folder(output), ignore_errors=True)
