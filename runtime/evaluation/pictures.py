"""Where results lie, and whether a finished one may be used again.

``OUTDIR/<data set>/<method>/<image>.png``, and beside each picture a record of what made it: the
method's identity, the input's hash and the picture's own. A picture whose record says anything
else, or that was changed since, is made anew.
"""

import json
from pathlib import Path
from typing import Any

from artifacts.files.hashing import sha256_of
from artifacts.files.whole_file import write_text
from runtime.evaluation.datasets import DataSet, Pair
from runtime.evaluation.methods import Method
from schemas.errors import QPackError, ResourceError
from schemas.json_io import read_json_file

RECORD_FORMAT = 1


class Pictures:
    """The pictures of one evaluation.

    Attributes:
        root: the folder of all of them.
        kept: whether it outlives the command.
    """

    def __init__(self, root: Path, *, kept: bool) -> None:
        self.root = root
        self.kept = kept

    def path(self, dataset: DataSet, method: Method, pair: Pair) -> Path:
        """Where the picture lies, finished or not; elsewhere for methods that are ready."""
        if method.ready is not None:
            return method.ready[dataset.name][pair.name]
        return self.root / dataset.name / method.name / f"{pair.name}.png"

    def finished(self, picture: Path, record: dict[str, Any]) -> bool:
        """Whether ``picture`` is there, made as ``record`` says, and whole."""
        try:
            written = read_json_file(record_path(picture), where="record", error=QPackError)
            return bool(written == {**record, "picture_sha256": sha256_of(picture)})
        except (OSError, QPackError):
            return False

    def start(self, picture: Path) -> None:
        """Make room for a picture: from here to `finish` there is no record of it.

        Raises:
            ResourceError: the folder cannot be written to.
        """
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            record_path(picture).unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(f"{picture}: could not be written ({error.strerror})") from error

    def finish(self, picture: Path, record: dict[str, Any]) -> None:
        """Write down what made a finished picture.

        Raises:
            ResourceError: the record cannot be written.
        """
        content = {**record, "picture_sha256": sha256_of(picture)}
        write_text(record_path(picture), json.dumps(content, indent=2) + "\n")


def make_record(method: Method, pair: Pair) -> dict[str, Any]:
    """What a picture has to have been made from and by."""
    return {
        "format": RECORD_FORMAT,
        "made_by": method.identity,
        "input_sha256": sha256_of(pair.low),
    }


def record_path(picture: Path) -> Path:
    """Where the record of a picture lies."""
    return picture.with_name(f"{picture.name}.json")
