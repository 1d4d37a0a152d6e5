"""``qrun bench``: how fast is a quantized network on this machine, and against what?

Heavy imports stand inside the functions that need them, so that ``--help`` and a mistyped option
are answered at once.
"""

import contextlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, terminal
from artifacts.files.whole_file import write_text
from runtime.bench.workload import (
    SIZES_PX,
    Workload,
    parse_bits,
    parse_ranks,
    parse_sizes,
)
from runtime.cli.model import local_pack
from runtime.cli.options import Debug, Device, Json
from runtime.cli.screen import Screen
from runtime.device_names import check_names
from runtime.images.batch import check_writable
from schemas.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Group

    from artifacts.family import Architecture
    from runtime.bench.run import BenchResult, Settings

PRESET = "dit4sr"
"""Whose blocks are measured."""
BENCH_EXAMPLE = """
Examples:

qrun bench

qrun bench --size 512 --size 1024 --batch 2 --json > bench.json

qrun bench --processor-time --no-peers

qrun bench --pack model.qpack --backend cpu --backend reference
"""

BUNDLED_PHOTO = Path(str(files("artifacts").joinpath("demo/photo.png")))
CPU_ROUNDS, CUDA_ROUNDS = 5, 20
CPU_BATCH, CUDA_BATCH = 1, 2
BITS, RANKS = "W4A4", "32+8"


def bench(
    *,
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Time a whole upscale with this pack by stage, files, VAE and network, instead of"
            " single blocks."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="What is upscaled (default: the bundled photo).")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            help=f"Side of the picture: {' or '.join(map(str, SIZES_PX))} (default:"
            f" {SIZES_PX[0]}). Repeatable."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Passes at once; 2 with guidance (default: 2 on CUDA, 1 on CPUs)."
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(help=f"Of weights and activations, in every layer (default: {BITS})."),
    ] = None,
    ranks: Annotated[
        str | None, typer.Option(help=f"Of the global and the local factors (default: {RANKS}).")
    ] = None,
    device: Device = "auto",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="A backend that `qrun doctor` lists (default: all). Repeatable."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Times per candidate (default: {CUDA_ROUNDS} on CUDA, {CPU_ROUNDS} on CPUs and"
            " with --pack).",
        ),
    ] = None,
    compiling: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compare torch.compile too, which takes long on CPUs (default: on CUDA).",
        ),
    ] = None,
    peers: Annotated[
        bool | None,
        typer.Option(
            "--peers/--no-peers", help="Compare SDNQ and torchao, if installed (default: do)."
        ),
    ] = None,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Time single layers, too (default: do)."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch, on CPUs.")] = None,
    processor_time: Annotated[
        bool,
        typer.Option(
            "--processor-time",
            help="One thread, and its processor time instead of the wall's: for a machine that"
            " has other work.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the JSON object to this file, too.")
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Time blocks and layers of DiT4SR with random weights, quantized and not.

    Candidates are torch in bfloat16 and float32, torch.compile, every backend, SDNQ and torchao.
    They take turns; times are medians with the lowest and the highest. What cannot run here is
    listed with the reason. With --pack a whole upscale is timed instead, by stage.
    """
    with exit_on_error(debug=debug):
        sizes = parse_sizes(size or SIZES_PX[:1])
        parsed = (
            parse_bits(BITS if bits is None else bits),
            parse_ranks(RANKS if ranks is None else ranks),
        )
        check_names(device)
        if processor_time and threads is not None and threads > 1:
            raise UsageError("--processor-time: it is the time of one thread, not of several")
        if out is not None:
            if out.is_dir():
                raise UsageError(f"{out} is a folder", hint="--out takes a file")
            check_writable(out.parent)
        if pack is None and picture is not None:
            raise UsageError("--picture: it is upscaled with a pack", hint="add --pack")
        if picture is not None and not picture.is_file():
            missing = "is no file" if picture.exists() else "no such file or folder"
            raise UsageError(f"{picture}: {missing}")
        if pack is not None:
            others = {
                "--size": size,
                "--batch": batch,
                "--bits": bits,
                "--ranks": ranks,
                "--compile": compiling,
                "--peers": peers,
                "--layers": layers,
            }
            for option, value in others.items():
                if value is not None:
                    raise UsageError(f"{option}: it is for blocks, and --pack times an upscale")
            _bench_pack(
                pack,
                picture or BUNDLED_PHOTO,
                backend,
                device,
                rounds=rounds if rounds is not None else CPU_ROUNDS,
                threads=threads,
                processor_time=processor_time,
                json_output=json_output,
                out=out,
            )
            return

        from runtime.bench.run import Settings
        from runtime.device import device_and_dtype

        torch_device, _ = device_and_dtype(device, "auto")
        on_cuda = torch_device.type == "cuda"
        if processor_time and on_cuda:
            raise UsageError("--processor-time: a GPU's work takes none", hint="--device cpu")
        _check_backends(backend)
        architecture, text_tokens = network_to_measure()
        settings = Settings(
            workload=Workload(
                sizes,
                batch if batch is not None else CUDA_BATCH if on_cuda else CPU_BATCH,
                *parsed,
                text_tokens,
            ),
            device=torch_device,
            backends=None if not backend else tuple(backend),
            rounds=rounds if rounds is not None else CUDA_ROUNDS if on_cuda else CPU_ROUNDS,
            compiling=on_cuda if compiling is None else compiling,
            peers=peers is not False,
            layers=layers is not False,
            processor_time=processor_time,
        )
        with _torch_threads(1 if processor_time else threads):
            result = _run(settings, architecture, quiet=json_output)
        from runtime.bench.report import render, to_json

        _show(to_json(result), render(result), json_output=json_output, out=out)


def _bench_pack(
    pack: Path,
    picture: Path,
    backends: list[str] | None,
    device: str,
    *,
    rounds: int,
    threads: int | None,
    processor_time: bool,
    json_output: bool,
    out: Path | None,
) -> None:
    """Time upscales of ``picture``, and print and write where the time goes."""
    from runtime.bench.stages import measure_stages, stages_json, stages_table
    from runtime.device import device_and_dtype
    from runtime.loader import load_pipeline

    pack = local_pack(pack)
    chosen, _ = device_and_dtype(device, "auto")
    if processor_time and chosen.type == "cuda":
        raise UsageError("--processor-time: a GPU's work takes none", hint="--device cpu")
    _check_backends(backends)
    with (
        _torch_threads(1 if processor_time else threads),
        Screen(1, quiet=json_output, unit="measured") as screen,
    ):
        result = measure_stages(
            lambda name: load_pipeline(pack=pack, device=device, backend=name),
            backends or ["auto"],
            picture,
            rounds=rounds,
            processor_time=processor_time,
            after_round=lambda done: screen.step(done, rounds),
        )
    _show(stages_json(result), stages_table(result), json_output=json_output, out=out)


def network_to_measure() -> "tuple[Architecture, int]":
    """The published network's shapes, and its text tokens."""
    from artifacts.family import preset_architecture

    architecture = preset_architecture(PRESET, None)
    return architecture, architecture.family.text_tokens


def _check_backends(names: list[str] | None) -> None:
    """Make sure that backends have these names.

    Raises:
        UsageError: one has not.
    """
    from runtime.backends import BACKENDS

    for name in names or ():
        if name not in BACKENDS:
            raise UsageError(f"there is no backend {name!r}", hint=f"one of: {', '.join(BACKENDS)}")


@contextlib.contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(settings: "Settings", architecture: "Architecture", *, quiet: bool) -> "BenchResult":
    """Measure, with progress on stderr."""
    from runtime.bench.run import BenchListener, count_steps, measure

    with Screen(count_steps(settings, architecture), quiet=quiet, unit="measured") as screen:
        listener = BenchListener(screen.say, screen.step, screen.advance)
        return measure(settings, architecture, listener)


def _show(
    content: "dict[str, Any]", tables: "Group", *, json_output: bool, out: Path | None
) -> None:
    """Print the result and write the file."""
    if out is not None:
        write_text(out, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if json_output:
        print_json(content)
        return
    # A pipe or a file has no width; nothing is cut to fit one.
    terminal(piped_width=1000).print(tables)
