"""The command ``qrun``: upscale images with a pack, look at the machine.

Heavy imports stand inside the functions that need them, so that ``--help`` and a mistyped path are
answered at once.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.command_line import exit_on_error
from runtime.batch import DEFAULT_MAX_PIXELS, Job, Outcome, plan_jobs, run_jobs
from schemas.errors import BatchError, ImageError, UsageError

if TYPE_CHECKING:
    import torch

    from runtime.pipeline import Pipeline
    from runtime.settings import UpscaleSettings

DEVICES = ("auto", "cpu", "cuda")
VARIANTS = ("q", "f", "r1")
DTYPES = ("auto", "float32", "bfloat16", "float16")

app = typer.Typer(
    name="qrun",
    help="Upscale images by four with a quantized DiT4SR pack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

UPSCALE_EXAMPLE = """
Examples:

qrun upscale photo.jpg --pack model.qpack

qrun upscale photos/ --pack model.qpack -o upscaled/ --steps 20
"""

DOCTOR_EXAMPLE = """
Example:

qrun doctor --json
"""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def main() -> None:
    """Run ``qrun``."""
    app()


@app.command(epilog=UPSCALE_EXAMPLE)
def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")
    ],
    *,
    pack: Annotated[Path | None, typer.Option(help="The .qpack folder to run.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="A folder; for one input also a file. Default: beside the input."
        ),
    ] = None,
    full_precision: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Run this unquantized checkpoint; VAE and prompts come from --pack or --base.",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Of the --full-precision network: q, f or r1 (default: the pack's, or q)."
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Stable Diffusion 3.5 medium folder, for a pack without its own VAE."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps (default: the pack's).")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Guidance scale; 1 takes half the time (default: the pack's)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starting noise.")] = 0,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in latent pixels (default: the pack's).")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Overlap of tiles in latent pixels (default: the pack's).")
    ] = None,
    color_fix: Annotated[
        str | None, typer.Option(help="adain, wavelet or none (default: the pack's).")
    ] = None,
    activation_bits: Annotated[
        int | None,
        typer.Option(
            help="Width of all activations, 1 to 8, or 16 for none (default: the bit grid's)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help=", ".join(DEVICES))] = "auto",
    dtype: Annotated[str, typer.Option(help=", ".join(DTYPES))] = "auto",
    backend: Annotated[str, typer.Option(help="auto, or one that `qrun doctor` lists.")] = "auto",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse inputs with more pixels than this.")
    ] = DEFAULT_MAX_PIXELS,
    force: Annotated[bool, typer.Option("--force", help="Redo finished outputs.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Upscale images by four.

    Results are named <stem>_x4.png. An output that exists is finished and is skipped, so an
    interrupted command can be repeated; --force redoes it. Inputs that are themselves results of
    other inputs are left out.
    """
    with exit_on_error(debug=debug):
        if pack is None and full_precision is None:
            raise UsageError("no model: give --pack or --full-precision")
        _one_of("--device", device, DEVICES)
        _one_of("--dtype", dtype, DTYPES)
        if variant is not None:
            _one_of("--variant", variant, VARIANTS)
            if full_precision is None:
                raise UsageError("--variant goes with --full-precision: a pack knows its own")
        jobs = plan_jobs(inputs, out)

        def load() -> "tuple[Pipeline, UpscaleSettings]":
            pipeline = _load_pipeline(
                pack=pack,
                full_precision=full_precision,
                variant=variant,
                base=base,
                device=device,
                dtype=dtype,
                backend=backend,
            )
            if activation_bits is not None:
                pipeline = _with_activation_bits(pipeline, activation_bits)
            settings = pipeline.sampling.override(
                patch_size=pipeline.patch_size,
                steps=steps,
                guidance=guidance,
                tile=tile,
                overlap=overlap,
                color_fix=color_fix,  # type: ignore[arg-type]  # any text; check() follows
                seed=seed,
            )
            settings.check(patch_size=pipeline.patch_size, largest_tile=pipeline.largest_tile)
            return pipeline, settings

        with _Screen(len(jobs), quiet=json_output) as screen:
            outcomes = _upscale_jobs(jobs, load, screen, max_pixels=max_pixels, force=force)
        if json_output:
            _print_json({"files": [_as_json(outcome) for outcome in outcomes]})
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        if failed:
            raise BatchError(
                f"{failed} of {len(jobs)} images failed",
                hint="the others are finished; the same command tries the failed ones again",
            )


def _upscale_jobs(
    jobs: list[Job],
    load: "Callable[[], tuple[Pipeline, UpscaleSettings]]",
    screen: "_Screen",
    *,
    max_pixels: int,
    force: bool,
) -> list[Outcome]:
    """Check every image that is still to do, load the model if one is good, and upscale."""
    loaded: list[tuple[Pipeline, UpscaleSettings]] = []
    bad: dict[Path, ImageError] = {}
    todo = [job for job in jobs if force or not job.output.exists()]
    if todo:
        # The image library takes a tenth of a second, the model's seconds to minutes: bad images
        # are told first, and if all are bad there is nothing to load a model for.
        from runtime.image_io import read_header

        for job in todo:
            try:
                read_header(job.source, max_pixels=max_pixels)
            except ImageError as error:
                bad[job.source] = error
        if len(bad) < len(todo):
            loaded.append(load())

    def work(job: Job) -> dict[str, Any]:
        from runtime.upscale import upscale_file

        if job.source in bad:
            raise bad[job.source]
        pipeline, settings = loaded[0]
        started = time.perf_counter()
        report = upscale_file(
            pipeline,
            job.source,
            job.output,
            settings,
            max_pixels=max_pixels,
            progress=screen.step,
        )
        return {
            "width_px": report.width,
            "height_px": report.height,
            "seconds": round(time.perf_counter() - started, 3),
            "notes": list(report.notes),
        }

    return run_jobs(jobs, work, force=force, report=screen.report)


def _load_pipeline(
    *,
    pack: Path | None,
    full_precision: Path | None,
    variant: str | None,
    base: Path | None,
    device: str,
    dtype: str,
    backend: str,
) -> "Pipeline":
    """Load the model that the options name, onto the device they name."""
    from runtime.load import load_full_precision, load_pack

    torch_device, torch_dtype = _device_and_dtype(device, dtype)
    if full_precision is not None:
        return load_full_precision(
            full_precision,
            pack=pack,
            base=base,
            variant=variant,  # type: ignore[arg-type]  # one of VARIANTS, as checked
            device=torch_device,
            dtype=torch_dtype,
        )
    assert pack is not None  # checked before anything was read
    return load_pack(pack, base=base, device=torch_device, dtype=torch_dtype, backend=backend)


def _device_and_dtype(device: str, dtype: str) -> "tuple[torch.device, torch.dtype]":
    """Choose where and how to compute: a GPU where there is one, in bfloat16; else float32.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UsageError(
            "--device cuda: torch sees no GPU here", hint="--device cpu works anywhere"
        )
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    chosen: torch.dtype = getattr(torch, dtype)
    return torch.device(device), chosen


def _with_activation_bits(pipeline: "Pipeline", bits: int) -> "Pipeline":
    """Return the pipeline with one activation width in place of its bit grid."""
    if bits not in {*range(1, 9), 16}:
        raise UsageError(f"--activation-bits {bits}: 1 to 8, or 16 for unquantized activations")
    grid = pipeline.bits_at(0.0)
    if grid is None:
        raise UsageError("--activation-bits: a full-precision network has no quantized layers")
    column = dict.fromkeys(grid, bits)
    return replace(pipeline, bits_at=lambda _timestep: column)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value}: one of {', '.join(allowed)}")


class _Screen:
    """What the user sees: one line per image, log lines, and a progress bar on a terminal.

    All of it goes to stderr; stdout is for ``--json``.
    """

    def __init__(self, images: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        self._images = images
        self._quiet = quiet
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._progress = Progress(
            "{task.description}",
            *Progress.get_default_columns()[1:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._steps = self._progress.add_task("steps", total=None)
        self._files = self._progress.add_task("images", total=images, visible=images > 1)

    def __enter__(self) -> "_Screen":
        self._log = _LogLines(self._say)
        logging.getLogger("runtime").addHandler(self._log)
        logging.getLogger("runtime").setLevel(logging.INFO)
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()
        logging.getLogger("runtime").removeHandler(self._log)

    def _say(self, line: str) -> None:
        self._console.print(line)

    def step(self, done: int, total: int) -> None:
        """Show how far the image at hand is."""
        self._progress.update(self._steps, completed=done, total=total)

    def report(self, outcome: Outcome) -> None:
        """Show what became of one image."""
        self._progress.advance(self._files)
        self._progress.reset(self._steps, total=None)
        if outcome.status == "failed":
            self._say(f"failed: {outcome.error}")
        elif outcome.status == "skipped":
            self._say(f"skipped: {outcome.job.output} exists (--force redoes it)")
        elif not self._quiet and outcome.details is not None:
            size = f"{outcome.details['width_px']} x {outcome.details['height_px']} px"
            self._say(f"done: {outcome.job.output} ({size}, {outcome.details['seconds']:.1f} s)")


class _LogLines(logging.Handler):
    """Shows log records of the runtime as plain lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._show = say

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        level = "warning" if record.levelno >= logging.WARNING else "note"
        self._show(f"{level}: {record.getMessage()}")


@app.command(epilog=DOCTOR_EXAMPLE)
def doctor(json_output: Json = False, debug: Debug = False) -> None:
    """Show what this machine offers: versions, devices, memory, backends."""
    with exit_on_error(debug=debug):
        facts = _machine()
        if json_output:
            _print_json(facts)
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=False)
        for name, value in facts.items():
            shown = "\n".join(value) if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), shown)
        Console().print(table)


def _machine() -> dict[str, Any]:
    """What `doctor` shows, by name."""
    import platform

    import pyvips
    import torch

    from runtime.backends import BACKENDS

    devices = [torch.device("cpu")]
    names = [platform.processor() or platform.machine()]
    memory = [_cpu_memory()]
    for index in range(torch.cuda.device_count()):
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        devices.append(torch.device("cuda", index))
        names.append(torch.cuda.get_device_name(index))
        memory.append(f"{free_bytes / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB free")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "threads": torch.get_num_threads(),
        "devices": [
            f"{device}: {name}, {free}"
            for device, name, free in zip(devices, names, memory, strict=True)
        ],
        "backends": [
            f"{backend.name} on {device}: {backend.missing(device) or 'available'}"
            for backend in BACKENDS.values()
            for device in devices
        ],
    }


def _cpu_memory() -> str:
    """Free and total main memory, where the system tells."""
    import os

    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        free, total = (os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return "memory unknown"  # Windows and macOS do not answer both
    return f"{free * page_bytes / 2**30:.1f} of {total * page_bytes / 2**30:.1f} GiB free"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    """One entry of ``--json``; its keys are the same for every status."""
    details = outcome.details or {}
    return {
        "input": str(outcome.job.source),
        "output": str(outcome.job.output),
        "status": outcome.status,
        "width_px": details.get("width_px"),
        "height_px": details.get("height_px"),
        "seconds": details.get("seconds"),
        "notes": details.get("notes", []),
        "error": outcome.error or None,
        "exit_code": outcome.exit_code,
    }


def _print_json(content: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
