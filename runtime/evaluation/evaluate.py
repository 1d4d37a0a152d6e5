"""Make the pictures, one model in memory at a time, then judge them.

A picture that cannot be made or read is written down, and the rest goes on. Everything is judged
from the files, so that a result counts as it is written, in 8 bits.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from runtime.evaluation.datasets import DataSet, Pair, check_sizes
from runtime.evaluation.methods import Method, Upscaler
from runtime.evaluation.metrics import MetricSet
from runtime.evaluation.pictures import Pictures, make_record
from runtime.images.alpha import on_white
from runtime.images.image_io import read_header, read_image
from runtime.images.resizing import SCALE
from runtime.sampling.sampler import StepCallback
from schemas.error_text import one_line
from schemas.errors import CheckpointError, ImageError, PackError, UsageError

Key = tuple[str, str, str]
"""Names of data set, image and method."""


@dataclass
class Entry:
    """One image by one method.

    Attributes:
        picture: the file.
        reused: whether it was there already.
        seconds: what making it took, or None.
        error: why there is no picture, or none that can be judged; else empty.
        values: metric -> value.
        problems: metric -> why it has no value.
    """

    picture: Path
    reused: bool = False
    seconds: float | None = None
    error: str = ""
    values: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listener:
    """Who is told how far it is.

    Attributes:
        say: a line for the user.
        step: sampling steps of the image at hand, done and in all.
        advance: one picture was made, or judged.
    """

    say: Callable[[str], None]
    step: StepCallback
    advance: Callable[[], None]


def check_images(
    datasets: Sequence[DataSet], methods: Sequence[Method], *, max_pixels: int
) -> dict[Path, str]:
    """Read the headers of all files that are there already.

    Returns:
        Damaged file -> what is wrong with it.

    Raises:
        UsageError: a truth or a ready result is not exactly four times its input.
    """
    bad: dict[Path, str] = {}

    def sizes(
        partners: Sequence[tuple[Path, Path]],
    ) -> list[tuple[Path, tuple[int, int], Path, tuple[int, int]]]:
        found = []
        for low, partner in partners:
            small = _size(low, bad, max_pixels)
            large = _size(partner, bad, max_pixels * SCALE**2)
            if small is not None and large is not None:
                found.append((low, small, partner, large))
        return found

    for dataset in datasets:
        for pair in dataset.pairs:
            _size(pair.low, bad, max_pixels)
        truths = [(pair.low, pair.truth) for pair in dataset.pairs if pair.truth is not None]
        check_sizes(sizes(truths), scale=SCALE, what="truth")
        for method in methods:
            if method.ready is not None:
                files = method.ready[dataset.name]
                ready = [(pair.low, files[pair.name]) for pair in dataset.pairs]
                check_sizes(sizes(ready), scale=SCALE, what=f"result of {method.name}")
    return bad


def make_pictures(
    datasets: Sequence[DataSet],
    methods: Sequence[Method],
    pictures: Pictures,
    bad: Mapping[Path, str],
    listener: Listener,
) -> dict[Key, Entry]:
    """Make every picture that is not there yet, method by method.

    Args:
        datasets: the images.
        methods: the rows of the table.
        pictures: where results go.
        bad: damaged file -> what is wrong with it.
        listener: is told of progress.

    Raises:
        PackError, CheckpointError, UsageError: a model cannot be run at all.
        KeyboardInterrupt: says what was kept.
    """
    entries: dict[Key, Entry] = {}
    total = sum(len(dataset.pairs) for dataset in datasets) * len(methods)
    try:
        for method in methods:
            _make_with(method, datasets, pictures, bad, listener, entries)
    except KeyboardInterrupt:
        if not pictures.kept:
            raise
        done = sum(not entry.error for entry in entries.values())
        raise KeyboardInterrupt(
            f"{done} of {total} pictures finished; the same command goes on from there"
        ) from None
    return entries


def _make_with(
    method: Method,
    datasets: Sequence[DataSet],
    pictures: Pictures,
    bad: Mapping[Path, str],
    listener: Listener,
    entries: dict[Key, Entry],
) -> None:
    """Make the pictures of one method; the model is loaded for the first that is missing."""
    upscaler: Upscaler | None = None
    for dataset in datasets:
        for pair in dataset.pairs:
            entry = Entry(pictures.path(dataset, method, pair))
            # Written down before the work: an interruption counts finished entries only.
            problem = next((bad[f] for f in _inputs(pair, entry, method) if f in bad), "")
            try:
                if problem:
                    entry.error = problem
                elif method.load is not None:
                    record = make_record(method, pair)
                    if pictures.finished(entry.picture, record):
                        entry.reused = True
                    else:
                        upscaler = upscaler or method.load()
                        started = time.perf_counter()
                        pictures.start(entry.picture)
                        upscaler(pair.low, entry.picture, listener.step)
                        pictures.finish(entry.picture, record)
                        entry.seconds = round(time.perf_counter() - started, 3)
            except (PackError, CheckpointError, UsageError):
                raise
            except Exception as error:
                entry.error = one_line(error)
            entries[dataset.name, pair.name, method.name] = entry
            if entry.error:
                listener.say(f"failed: {dataset.name}, {pair.name}, {method.name}: {entry.error}")
            listener.advance()
    if upscaler is not None:
        # The next model may need all the memory there is.
        del upscaler
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def judge(
    datasets: Sequence[DataSet],
    methods: Sequence[Method],
    entries: Mapping[Key, Entry],
    metrics: MetricSet,
    listener: Listener,
    *,
    max_pixels: int,
) -> None:
    """Compute every metric of every picture into its entry.

    Metrics that compare are left out of data sets without truth. A metric that fails on an image
    has no value there, and the entry says why.
    """
    limit = max_pixels * SCALE**2
    for dataset in datasets:
        for pair in dataset.pairs:
            truth, problem = None, ""
            mine = [entries[dataset.name, pair.name, method.name] for method in methods]
            if pair.truth is not None and not all(entry.error for entry in mine):
                truth, problem = _read(pair.truth, limit)
            for method, entry in zip(methods, mine, strict=True):
                if not entry.error:
                    entry.error = problem
                    if not problem:
                        _judge_one(entry, truth, metrics, limit)
                    if entry.error:
                        listener.say(
                            f"failed: {dataset.name}, {pair.name}, {method.name}: {entry.error}"
                        )
                    for name, why in entry.problems.items():
                        listener.say(
                            f"no {name}: {dataset.name}, {pair.name}, {method.name}: {why}"
                        )
                listener.advance()


def _judge_one(entry: Entry, truth: Tensor | None, metrics: MetricSet, max_pixels: int) -> None:
    result, entry.error = _read(entry.picture, max_pixels)
    if result is None:
        return
    if truth is not None and truth.shape != result.shape:
        sizes = [f"{image.shape[-1]} x {image.shape[-2]} px" for image in (result, truth)]
        entry.error = f"{entry.picture} is {sizes[0]}, its truth {sizes[1]}"
        return
    for metric in metrics.metrics:
        if metric.needs_truth and truth is None:
            continue
        try:
            entry.values[metric.name] = metric.score(result, truth)
        except Exception as error:  # whatever a metric's own code raises
            entry.problems[metric.name] = one_line(error)


def _read(path: Path, max_pixels: int) -> tuple[Tensor | None, str]:
    """Return the picture [1, 3, H, W], seen on white, or None and what is wrong with it."""
    try:
        image = read_image(path, max_pixels=max_pixels)
    except ImageError as error:
        return None, one_line(error)
    return on_white(image.rgb, image.alpha), ""


def _size(path: Path, bad: dict[Path, str], max_pixels: int) -> tuple[int, int] | None:
    """Width and height by the header, or None for a damaged file, which is added to ``bad``."""
    try:
        header = read_header(path, max_pixels=max_pixels)
    except ImageError as error:
        bad[path] = one_line(error)
        return None
    return header.width, header.height


def _inputs(pair: Pair, entry: Entry, method: Method) -> list[Path]:
    """The files that have to be good for this picture to be made and judged."""
    files = [pair.low, *([pair.truth] if pair.truth is not None else [])]
    return [*files, entry.picture] if method.ready is not None else files
