"""Which files an upscale reads and writes.

Everything that can be known from names and folders alone is checked here, before a model is loaded.
Nothing heavy is imported, so a mistyped path is answered at once.
"""

import errno
import stat
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from runtime.images.batch import Job, check_writable
from runtime.images.input_files import input_files
from runtime.images.output_names import FileKeys, candidate_names, output_place, result_paths
from runtime.images.result_style import ResultStyle
from runtime.remote.place import Place, RemotePath
from schemas.errors import UsageError


def _say_nothing(_note: str) -> None:
    pass


def plan_jobs(
    inputs: Sequence[Place],
    out: str | None,
    *,
    style: ResultStyle | None = None,
    recursive: bool = False,
    note: Callable[[str], None] = _say_nothing,
) -> list[Job]:
    """Decide what is read and what is written.

    A folder stands for the images in it, by extension. A result is named ``<stem>_x4.png`` and lies
    beside its input, or in the folder ``out``; with a single input, ``out`` may be the file itself.
    A file that is the result of another input of the same command is no input: so
    ``qrun upscale *.png`` can be repeated.

    Args:
        inputs: files, folders, or patterns such as ``*.png`` that the shell left alone; on this
            machine or behind URLs.
        out: as `output_place` takes it, the folder made if need be; None for beside the inputs.
        style: says how results are named, and in which format they are written.
        recursive: take what lies deeper in folders too; ``out`` then gets the same folders.
        note: is told what the user should know.

    Returns:
        At least one job, in the order of the inputs. Of several, those that cannot be done have a
        ``problem``.

    Raises:
        UsageError: an input is missing, ``out`` cannot be used, or there is no job that can be
            done.
    """
    style = style or ResultStyle()
    files = input_files(inputs, note, recursive=recursive)
    keys = FileKeys()
    place = None if out is None else output_place(out)
    if place is not None and place.is_file:
        if len(files) != 1:
            raise UsageError(
                f"{out} is one file, but there are {len(files)} inputs", hint="name a folder"
            )
        style.check_suffix(place.path.suffix)
        jobs = [Job(files[0].path, place.path)]
    else:
        style.check_suffix(style.extension)
        places: dict[Place, Place] = {
            file.path: file.path.parent if place is None else place.path / file.subfolder
            for file in files
        }
        sources = _without_results(places, style.ending, keys, note)
        paths = result_paths(sources, [places[s] for s in sources], keys, style.ending)
        jobs = [Job(source, path) for source, path in zip(sources, paths, strict=True)]

    jobs = _check(jobs, keys)
    if all(job.problem is not None for job in jobs):
        problem = jobs[0].problem
        assert problem is not None
        raise problem
    return jobs


def _without_results(
    places: Mapping[Place, Place], ending: str, keys: FileKeys, note: Callable[[str], None]
) -> list[Place]:
    """Leave out what the results of other sources are called.

    Args:
        places: source -> folder of its result.
        ending: of results' names.
        keys: of paths.
        note: is told how many there are.
    """
    end = unicodedata.normalize("NFC", ending)
    if not any(unicodedata.normalize("NFC", source.name).endswith(end) for source in places):
        return list(places)
    made_from = {
        keys.key(folder, name): source
        for source, folder in places.items()
        for name in candidate_names(source, ending)
    }
    kept = [source for source in places if made_from.get(keys.of(source), source) == source]
    left_out = len(places) - len(kept)
    if left_out:
        files = "1 file" if left_out == 1 else f"{left_out} files"
        note(f"{files} left out: results of other inputs")
    return kept


def _check(jobs: Sequence[Job], keys: FileKeys) -> list[Job]:
    """Find the problems of single jobs, and make the folders of the others' results."""
    source_keys = {keys.of(job.source) for job in jobs}
    taken: dict[str, Place] = {}
    folders: dict[Place, UsageError | None] = {}
    checked = []
    for job in jobs:
        key = keys.of(job.output)
        problem = _problem(job, key, source_keys, taken)
        folder = job.output.parent
        if problem is None and folder not in folders:
            folders[folder] = _folder_problem(folder)
        checked.append(replace(job, problem=problem or folders.get(folder)))
        taken.setdefault(key, job.source)
    return checked


def _problem(
    job: Job, key: str, source_keys: set[str], taken: dict[str, Place]
) -> UsageError | None:
    """Why the names of ``job`` cannot be used, or None."""
    unusable = _unusable_name(job)
    if unusable is not None:
        return unusable
    if key in taken:
        return UsageError(
            f"{taken[key]} and {job.source} would both be written to {job.output}",
            hint="upscale them in two runs, into two folders",
        )
    if key in source_keys:
        return UsageError(
            f"{job.output} is an input and would be replaced by a result",
            hint="name another folder or file with -o, or another --suffix",
        )
    return None


def _unusable_name(job: Job) -> UsageError | None:
    """Why the system, or the image library, which takes UTF-8 alone, takes no such name."""
    for path in (job.source, job.output):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return UsageError(f"{str(path)!a}: the name is not valid Unicode", hint="rename it")
    if isinstance(job.output, RemotePath):
        return None
    try:
        if not stat.S_ISDIR(job.output.stat().st_mode):
            return None
        reason = f"is a folder, where the result of {job.source} would go"
    except (FileNotFoundError, NotADirectoryError):  # its folder is looked at later
        return None
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG
        reason = "has a name longer than the file system allows" if too_long else str(error)
    return UsageError(f"{job.output}: {reason}", hint="name the result with -o")


def _folder_problem(folder: Place) -> UsageError | None:
    try:
        check_writable(folder)
    except UsageError as error:
        return error
    return None
