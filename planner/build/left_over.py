"""What a command left that was killed when its output was already in place.

The same command is then refused, because its output exists: that is the moment to clear away its
lock, and an unfinished build that has become this very output. One of anything else is kept: it may
be that of a ``--force`` that was interrupted.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from artifacts.files.output_lock import lock_file, output_lock
from artifacts.pack.file_names import MANIFEST
from artifacts.pack.writer import remove_stale_partials
from planner.build.work_folder import PLAN, Plan, WorkFolder, work_folder
from planner.probe.kept_pictures import kept_folder, remove_kept
from schemas.calibration import MAX_CALIBRATION_BYTES
from schemas.errors import PackError, ResourceError, UsageError
from schemas.json_io import read_json_file


@contextlib.contextmanager
def cleared_when_refused(output: Path) -> Iterator[None]:
    """When the block refuses ``output``, remove what is left over from making it.

    Raises:
        UsageError: from the block.
    """
    try:
        yield
    except UsageError:
        with contextlib.suppress(OSError, ResourceError):  # such as: another process has it
            _clear(output)
        raise


def _clear(output: Path) -> None:
    work = WorkFolder(work_folder(output))
    kept = kept_folder(output)
    if not (work.path.exists() or kept.exists() or lock_file(output).exists()):
        return
    with output_lock(output):
        remove_stale_partials(output)
        if work.path.exists() and _has_become(output, work):
            work.remove()
        if kept.exists() and _modified(output) >= kept.stat().st_mtime_ns:
            remove_kept(output)


def _has_become(output: Path, work: WorkFolder) -> bool:
    """Whether ``output`` is what the unfinished build was for, and was finished after it."""
    plan = work.plan()
    if plan is None:  # its removal had begun
        return True
    is_newer = _modified(output) >= (work.path / PLAN).stat().st_mtime_ns
    return is_newer and _made_from(_described_by(output)) == {
        key: plan.get(key) for key in ("source", "settings")
    }


def _described_by(output: Path) -> Path:
    """The file that says what ``output`` is: its manifest, or itself."""
    return output / MANIFEST if output.is_dir() else output


def _modified(output: Path) -> int:
    return _described_by(output).stat().st_mtime_ns


def _made_from(file: Path) -> Plan | None:
    """Source and settings that a manifest or a calibration records, as a plan has them."""
    try:
        content = read_json_file(
            file, where=str(file), error=PackError, max_bytes=MAX_CALIBRATION_BYTES
        )
        recipe = content["recipe"]
        return {
            "source": [source["sha256"] for source in content["source"]["files"]],
            "settings": {"recipe": recipe["name"], **recipe["settings"]},
        }
    except (PackError, KeyError, TypeError):  # damaged, or neither of the two
        return None
