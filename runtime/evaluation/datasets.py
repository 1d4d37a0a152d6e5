"""Data sets as folders: which low-resolution image belongs to which truth and which result.

Files belong together by name. Stems that are equal belong together; for the rest, the ending that
only says which of the two a file is, is left off:

================  ====================  ====================  ==================================
data set          low resolution        truth                 note
================  ====================  ====================  ==================================
RealSR, as made   ``Canon_001_LR4``     ``Canon_001_HR``      both in one folder; either is taken
DRealSR, as made  ``Canon_10_x1``       ``Canon_10_x4``       ``test_LR/`` and ``test_HR/``
cropped sets      ``Canon_001_LR4``     ``Canon_001_LR4``     equal names, whatever they end in
RealLR200,        ``001``               none
RealLQ250
DIV2K             ``0801x4``            ``0801``
================  ====================  ====================  ==================================

Everything here is decided from names; `check_sizes` reads headers. Nothing heavy is imported.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.images.folder import images_in
from schemas.errors import UsageError

NO_TRUTH = Path("-")
"""What stands in place of a truth folder for a data set that has none."""

_ROLE = re.compile(r"[_-](hr|lr[234]?|gt|lq|hq|sr|out|x[1-4])$|(?<=\d)x[234]$", re.IGNORECASE)
"""Ending of a stem that says which of a pair, or at which scale, a file is."""

_LOW_ROLE = re.compile(r"_lr4?$", re.IGNORECASE)
_HIGH_ROLE = re.compile(r"_hr$", re.IGNORECASE)

_PLAIN_FOLDERS = re.compile(
    r"(test|val)?_?(lr|hr|lq|gt|low|input|inputs|images|test|val|x?4)", re.IGNORECASE
)
"""Folder names that say nothing about the data set; its parent's name does."""

_SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """One image of a data set.

    Attributes:
        name: the low-resolution file's stem; unique in the data set.
        low: the low-resolution file.
        truth: the file it should become, or None.
    """

    name: str
    low: Path
    truth: Path | None


@dataclass(frozen=True)
class DataSet:
    """One folder of low-resolution images.

    Attributes:
        name: unique among the data sets of a command; fit for a folder's name.
        folder: of the low-resolution images.
        truth_folder: of the truths, or None.
        pairs: sorted by name; at least one.
        unused_truths: how many files of ``truth_folder`` belong to no image.
    """

    name: str
    folder: Path
    truth_folder: Path | None
    pairs: tuple[Pair, ...]
    unused_truths: int = 0


def open_datasets(
    folders: Sequence[Path], truths: Sequence[Path], *, limit: int | None = None
) -> list[DataSet]:
    """Pair up the files of all folders.

    Args:
        folders: of low-resolution images.
        truths: none at all, or one for each folder, in their order; `NO_TRUTH` for none.
        limit: keep the first so many images of each data set, by name.

    Raises:
        UsageError: a folder is missing or empty, or files do not pair up; names them.
    """
    if truths and len(truths) != len(folders):
        raise UsageError(
            f"{len(folders)} data sets, but {len(truths)} times --truth",
            hint="give one for each folder, in their order; - for a data set without truth",
        )
    names = _unique_names([_dataset_name(folder) for folder in folders])
    datasets = []
    for name, folder, truth in zip(
        names, folders, truths or [NO_TRUTH] * len(folders), strict=True
    ):
        lows = by_stem(_low_files(folder), folder)
        if truth == NO_TRUTH:
            pairs = [Pair(stem, low, None) for stem, low in lows.items()]
            datasets.append(DataSet(name, folder, None, tuple(pairs[:limit])))
            continue
        highs = by_stem(_high_files(truth), truth)
        partners = match(lows, highs, folder, truth, what="truth")
        pairs = [Pair(stem, low, partners[stem]) for stem, low in lows.items()]
        unused = len(highs) - len(pairs)
        datasets.append(DataSet(name, folder, truth, tuple(pairs[:limit]), unused))
    return datasets


def result_files(dataset: DataSet, folder: Path, *, only: bool) -> dict[str, Path]:
    """Find the results of another program for the images of a data set.

    Args:
        dataset: the images.
        folder: has a subfolder with the data set's name or, with one data set, the files
            themselves.
        only: whether this is the only data set.

    Returns:
        Name of the image -> file, for every image.

    Raises:
        UsageError: the folder is missing, or files do not pair up; names them.
    """
    place = folder / dataset.name
    if not place.is_dir():
        if not only:
            raise UsageError(
                f"{place}: no such folder",
                hint="results of several data sets lie in subfolders named after them",
            )
        place = folder
    lows = {pair.name: pair.low for pair in dataset.pairs}
    return match(lows, by_stem(images_in(place), place), dataset.folder, place, what="result")


def match(
    lows: Mapping[str, Path],
    others: Mapping[str, Path],
    folder: Path,
    other_folder: Path,
    *,
    what: str,
) -> dict[str, Path]:
    """Give every low-resolution image its partner among ``others``.

    Args:
        lows: stem -> low-resolution file.
        others: stem -> file that may be a partner.
        folder: where the first lie, for messages.
        other_folder: where the others lie, for messages.
        what: what a partner is, for messages.

    Returns:
        Stem of the image -> partner.

    Raises:
        UsageError: an image has no partner or more than one, or shares it with another image.
    """
    found = {stem: others[stem] for stem in lows if stem in others}
    rest: dict[str, list[str]] = {}
    for stem in others:
        if stem not in found:
            rest.setdefault(pair_key(stem), []).append(stem)

    missing: list[str] = []
    sharing: dict[str, str] = {}
    for stem, low in lows.items():
        candidates = rest.get(pair_key(stem), [])
        if len(candidates) + (stem in found) > 1:
            names = [*candidates, *([stem] if stem in found else [])]
            files = ", ".join(sorted(others[name].name for name in names))
            raise UsageError(f"{low}: more than one {what} in {other_folder}: {files}")
        if stem in found:
            continue
        if not candidates:
            missing.append(low.name)
            continue
        partner = candidates[0]
        if partner in sharing:
            raise UsageError(
                f"{folder}: {lows[sharing[partner]].name} and {low.name} would share one {what},"
                f" {others[partner]}"
            )
        sharing[partner] = stem
        found[stem] = others[partner]
    if missing:
        raise UsageError(
            f"{folder}: no {what} in {other_folder} for {_some(missing)}",
            hint="stems have to be equal, up to an ending such as _LR4 and _HR, or _x1 and _x4",
        )
    return found


def pair_key(stem: str) -> str:
    """What the stems of one pair have in common: no role endings, and one Unicode form.

    There may be several: ``qrun upscale`` makes ``Canon_001_LR4_x4`` of ``Canon_001_LR4``.
    """
    shorter = _ROLE.sub("", stem)
    return unicodedata.normalize("NFC", stem) if shorter == stem else pair_key(shorter)


def by_stem(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Return stem -> file, sorted by stem.

    Raises:
        UsageError: two files have one stem.
    """
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: file.stem):
        stem = unicodedata.normalize("NFC", file.stem)
        if stem in found:
            raise UsageError(f"{folder}: {found[stem].name} and {file.name} have the same stem")
        found[stem] = file
    return found


def check_sizes(
    sizes: Iterable[tuple[Path, tuple[int, int], Path, tuple[int, int]]], *, scale: int, what: str
) -> None:
    """Make sure that partners are exactly ``scale`` times as large.

    Args:
        sizes: low-resolution file, its (width, height) in px, partner, its (width, height).
        scale: enlargement per side.
        what: what a partner is, for messages.

    Raises:
        UsageError: one is not; names the first few with their sizes.
    """
    wrong = [
        (low, small, partner, large)
        for low, small, partner, large in sizes
        # A picture that its EXIF orientation turns is stored on its side.
        if large not in {(scale * small[0], scale * small[1]), (scale * small[1], scale * small[0])}
    ]
    if not wrong:
        return
    shown = "; ".join(
        f"{partner} is {large[0]} x {large[1]} px, {scale} times {low.name} would be"
        f" {scale * small[0]} x {scale * small[1]}"
        for low, small, partner, large in wrong[:_SHOWN]
    )
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    if all(large == small for _, small, _, large in wrong):
        hint = (
            "inputs as large as their truth were enlarged beforehand, as in versions 1 and 2 of"
            " RealSR: take version 3, or the cropped sets"
        )
    else:
        hint = f"nothing is resized to fit: crop both so that one is {scale} times the other"
    raise UsageError(f"a {what} of the wrong size: {shown}{more}", hint=hint)


def _low_files(folder: Path) -> list[Path]:
    """Inputs in ``folder``; where it holds the truths as well, those are left out."""
    files = images_in(folder)
    lows = [file for file in files if _LOW_ROLE.search(file.stem)]
    return lows if lows and any(_HIGH_ROLE.search(file.stem) for file in files) else files


def _high_files(folder: Path) -> list[Path]:
    """Truths in ``folder``; where it holds the inputs as well, those are left out."""
    files = images_in(folder)
    highs = [file for file in files if _HIGH_ROLE.search(file.stem)]
    return highs if highs and any(_LOW_ROLE.search(file.stem) for file in files) else files


def _dataset_name(folder: Path) -> str:
    """The first part of the path, from its end, that says something."""
    parts = [part for part in folder.resolve().parts if part not in {"/", "\\"}]
    telling = [part for part in parts if not _PLAIN_FOLDERS.fullmatch(part)]
    return (telling or parts or ["images"])[-1]


def _unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, later ones that repeat one of them with a number behind."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
