"""``qrun eval``: how good are the results of packs, of an unquantized network, of other programs?

Heavy imports stand inside the functions that need them, so that ``--help`` and a mistyped path are
answered at once.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, terminal
from artifacts.files.whole_file import write_text
from runtime.cli.model import BaseOptions, NetworkOptions, local_pack
from runtime.cli.options import Debug, Json
from runtime.cli.screen import Screen
from runtime.evaluation.datasets import DataSet, open_datasets, result_files
from runtime.images.batch import check_writable
from runtime.images.folder import scan_folder
from schemas.errors import BatchError, UsageError

if TYPE_CHECKING:
    from runtime.cli.model import ModelCheck
    from runtime.evaluation.methods import Method, ModelOptions
    from runtime.evaluation.summary import Summary
    from runtime.loader import Loader

EVAL_EXAMPLE = """
Examples:

qrun eval test_LR/ --truth test_HR/ --pack model.qpack --full-precision dit4sr/

qrun eval RealLR200/ --pack a.qpack --pack b.qpack --metrics musiq,clipiqa -o results/

qrun eval test_LR/ --truth test_HR/ --results other=their_results/ --csv scores.csv
"""


def evaluate(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="LR_FOLDER", help="Folders of low-resolution images."),
    ],
    *,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="HR_FOLDER",
            help="What the images should become, one folder for each LR_FOLDER, in their order;"
            " - for one without. Repeatable.",
        ),
    ] = None,
    pack: Annotated[
        list[Path] | None, typer.Option(help="A .qpack folder to run. Repeatable.")
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Judge the pictures in DIR as they are. Repeatable."),
    ] = None,
    bicubic: Annotated[
        bool, typer.Option("--bicubic/--no-bicubic", help="Bicubic enlargement as a first row.")
    ] = True,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="pyiqa's names with commas between them (default: psnry, ssim, lpips, dists,"
            " fsim with --truth; piqe, musiq, maniqa, clipiqa, liqe).",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many images of each folder.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Keep the pictures in this folder, and use finished ones again."
        ),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every value to a table.")
    ] = None,
    network: NetworkOptions,
    base: BaseOptions,
    json_output: Json = False,
    debug: Debug = False,
    load_pipeline: "Loader",
    check_model: "ModelCheck",
) -> None:
    """Measure the quality of results on folders of images.

    Rows are methods: bicubic enlargement, packs, an unquantized network, finished results of other
    programs. Files belong together by name: equal stems, or RealSR's and DRealSR's endings. psnr
    is over RGB, psnry and ssim over the Y channel.
    """
    with exit_on_error(debug=debug):
        packs, truths = list(pack or []), list(truth or [])
        network.check()
        full_precision, max_pixels = network.full_precision, network.max_pixels
        if network.activation_bits is not None and not packs:
            raise UsageError("--activation-bits: there is no --pack to apply it to")
        if network.checkpoint is not None and not packs:
            raise UsageError("--checkpoint: there is no --pack whose source it could be")
        if csv_file is not None and csv_file.is_dir():
            raise UsageError(f"{csv_file} is a folder", hint="--csv takes a file")
        datasets = open_datasets(folders, truths, limit=limit)
        packs = [local_pack(path) for path in packs]
        check_model(packs=packs, full_precision=network.full_precision, base=base)
        ready = _ready_results(results or [], datasets)
        if not (packs or full_precision or ready or bicubic):
            raise UsageError("nothing to measure: give --pack, --full-precision or --results")
        for folder in {csv_file.parent if csv_file else None, out} - {None}:
            assert folder is not None
            check_writable(folder)

        # From here on it takes seconds: metrics first, because a misspelled one is likelier.
        from runtime.evaluation.evaluate import check_images
        from runtime.evaluation.methods import (
            ModelOptions,
            bicubic_method,
            full_precision_method,
            pack_methods,
            ready_method,
        )
        from runtime.evaluation.metrics import check_names, metric_names

        have_truth = any(dataset.truth_folder is not None for dataset in datasets)
        names = metric_names(metrics, have_truth=have_truth)
        check_names(names, have_truth=have_truth)

        finished = [ready_method(name, folder, files) for name, folder, files in ready]
        bad = check_images(datasets, finished, max_pixels=max_pixels)
        options = ModelOptions(
            load_pipeline=load_pipeline,
            sampling=network.sampling,
            base=base.files,
            device=network.device,
            dtype=network.dtype,
            backend=network.backend,
            memory=network.memory,
            checkpoint=network.checkpoint,
            activation_bits=network.activation_bits,
            max_pixels=max_pixels,
        )
        methods = [bicubic_method(max_pixels)] if bicubic else []
        if full_precision is not None:
            lender = packs[0] if packs else None
            methods.append(
                full_precision_method(
                    full_precision, pack=lender, variant=network.variant, options=options
                )
            )
        methods += [*pack_methods(packs, options), *finished]
        _check_method_names(methods)

        with _picture_folder(out) as root:
            _check_untouched(root, datasets, methods)
            summary = _run(datasets, methods, names, bad, root, options, out, quiet=json_output)
        _show(summary, json_output=json_output, csv_file=csv_file, kept=out is not None)
        failures = summary.failures
        if failures:
            raise BatchError(
                f"{len(failures)} of {len(summary.entries)} pictures failed",
                hint="the images concerned are left out of all means",
            )


def _run(
    datasets: Sequence[DataSet],
    methods: "Sequence[Method]",
    names: Sequence[str],
    bad: dict[Path, str],
    root: Path,
    options: "ModelOptions",
    out: Path | None,
    *,
    quiet: bool,
) -> "Summary":
    """Make and judge all pictures."""
    from runtime.device import device_and_dtype
    from runtime.evaluation.evaluate import Listener, judge, make_pictures
    from runtime.evaluation.metrics import open_metrics
    from runtime.evaluation.pictures import Pictures
    from runtime.evaluation.summary import summarize

    pictures = sum(len(dataset.pairs) for dataset in datasets) * len(methods)
    with Screen(2 * pictures, quiet=quiet, unit="made, judged") as screen:
        for folder in dict.fromkeys(
            folder for dataset in datasets for folder in (dataset.folder, dataset.truth_folder)
        ):
            if folder is not None and (note := scan_folder(folder).note):
                screen.say(f"note: {folder}: {note}")
        listener = Listener(screen.say, screen.step, screen.advance)
        metrics = open_metrics(names)
        if not metrics.metrics:
            reasons = "; ".join(f"{name}: {why}" for name, why in metrics.unavailable.items())
            raise UsageError(f"no metric can be computed here: {reasons}")
        entries = make_pictures(
            datasets, methods, Pictures(root, kept=out is not None), bad, listener
        )
        torch_device, _ = device_and_dtype(options.device, options.dtype)
        metrics = metrics.to(torch_device)
        judge(datasets, methods, entries, metrics, listener, max_pixels=options.max_pixels)
    return summarize(datasets, methods, metrics, entries)


def _show(summary: "Summary", *, json_output: bool, csv_file: Path | None, kept: bool) -> None:
    """Print the result and write the table of all values."""
    from runtime.evaluation.summary import to_csv, to_json

    if csv_file is not None:
        write_text(csv_file, to_csv(summary))
    if json_output:
        print_json(to_json(summary, pictures_kept=kept))
        return
    from runtime.evaluation.table import render_summary

    # A pipe or a file has no width; nothing is cut to fit one.
    terminal(piped_width=1000).print(render_summary(summary))


def _ready_results(
    given: Sequence[str], datasets: Sequence[DataSet]
) -> list[tuple[str, Path, dict[str, dict[str, Path]]]]:
    """Take ``--results`` apart: name, folder, data set -> image -> file.

    Raises:
        UsageError: one is not NAME=DIR, a name cannot be used, or a result is missing.
    """
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not (equals and name and folder):
            raise UsageError(
                f"--results {text}: NAME=DIR is needed", hint="as in --results other=out/"
            )
        place = Path(folder)
        files = {
            dataset.name: result_files(dataset, place, only=len(datasets) == 1)
            for dataset in datasets
        }
        found.append((name, place, files))
    return found


def _check_method_names(methods: "Sequence[Method]") -> None:
    """Refuse two rows of one name.

    Raises:
        UsageError: there are.
    """
    names = [method.name for method in methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two methods are called {twice}", hint="give --results another NAME")


def _check_untouched(root: Path, datasets: Sequence[DataSet], methods: "Sequence[Method]") -> None:
    """Make sure that no picture would be written over a file that is measured.

    Raises:
        UsageError: one would; names it.
    """
    from runtime.evaluation.pictures import Pictures

    pictures = Pictures(root, kept=True)
    given: set[Path] = set()
    made: set[Path] = set()
    for dataset in datasets:
        for pair in dataset.pairs:
            given |= {pair.low.resolve(), *([pair.truth.resolve()] if pair.truth else [])}
            for method in methods:
                path = pictures.path(dataset, method, pair).resolve()
                (made if method.ready is None else given).add(path)
    for path in sorted(given & made):
        raise UsageError(f"{path} would be replaced by a result", hint="choose another -o")


@contextmanager
def _picture_folder(out: Path | None) -> Iterator[Path]:
    """The folder of the pictures: the user's, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="qrun-eval-") as folder:
        yield Path(folder)
