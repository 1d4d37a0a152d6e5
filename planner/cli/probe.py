"""``qplan probe``: how much a layer's error changes the final latent.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.option_groups import grouped_options
from artifacts.cli.output import print_json, say, tell
from planner.cli.build_options import BaseOptions
from planner.cli.options import Debug, Json, Variant, show_notes
from schemas.errors import UsageError

if TYPE_CHECKING:
    from planner.probe.run import ProbeSettings

PROBE_EXAMPLE = """
Examples:

qplan probe dit4sr/ --base stable-diffusion-3.5-medium -o sensitivity.json

qplan build dit4sr/ --recipe standard --sensitivity sensitivity.json
"""


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe runs."""

    panel: ClassVar[str] = "Probe"

    pictures: Annotated[
        int | None,
        typer.Option(
            min=1, max=10000, help="How many pictures (default: 2 generated ones, or 32 photos)."
        ),
    ] = None
    cotangents: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Random directions per picture (default: 4 of a generated one, 1 of a photo).",
        ),
    ] = None
    crop: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65536,
            help="Side of the pictures in px (default: one tile's, 128 for DiT4SR).",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Seed of pictures, noise and directions.")
    ] = 0
    device: Annotated[str, typer.Option(help="Where the network runs: auto, cpu, cuda or mps.")] = (
        "auto"
    )

    def settings(self, folder: Path | None) -> "ProbeSettings":
        """As `planner.probe.run` takes them."""
        from planner.calibrate.settings import IMAGES
        from planner.probe.run import PICTURES, ProbeSettings, usual_cotangents

        pictures = self.pictures or (IMAGES if folder else PICTURES)
        cotangents = self.cotangents or usual_cotangents(folder)
        return ProbeSettings(folder, pictures, cotangents, self.crop, self.seed)


@grouped_options
def probe(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file."),
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="The sensitivity file.")] = Path(
        "sensitivity.json"
    ),
    calib: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Low-resolution images (default: generated pictures)."),
    ] = None,
    variant: Variant = None,
    options: ProbeOptions,
    base: BaseOptions,
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how much an error in a layer, at a step, changes the final latent.

    Random directions are carried back through the whole sampling loop of the unquantized network,
    both guidance branches. Pictures are generated unless --calib names photos. The file serves any
    target. An interrupted probe goes on behind its last finished picture when the command is
    repeated.
    """
    with exit_on_error(debug=debug):
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.files.output_lock import output_lock
        from planner.build.left_over import cleared_when_refused
        from planner.calibrate.device import choose_device
        from planner.cli.progress import BarProgress
        from planner.probe.kept_pictures import kept_folder, remove_kept
        from planner.probe.run import probe_checkpoint
        from planner.probe.sensitivity_file import write_sensitivity

        with cleared_when_refused(out):
            if out.exists() and not force:
                raise UsageError(f"{out} exists", hint="choose another output, or use --force")
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise UsageError(f"{out} cannot be written: it is a folder, or in none")
        base.check()
        opened = open_checkpoint(checkpoint)
        show_notes(opened.notes(variant))
        device, dtype = choose_device(options.device)
        with (
            output_lock(out),
            base.found(opened) as model,
            BarProgress(enabled=not json_output) as progress,
        ):
            found = probe_checkpoint(
                opened,
                variant,
                model,
                options.settings(calib),
                device=device,
                dtype=dtype,
                keep=kept_folder(out),
                report=tell,
                progress=progress,
            )
            write_sensitivity(out, found)
            remove_kept(out)
        layers, steps = len(found.layers), len(found.timesteps)
        if json_output:
            pictures = found.sampling.images
            print_json(
                {"sensitivity": str(out), "layers": layers, "steps": steps, "pictures": pictures}
            )
        else:
            say(f"{out}: {layers} layers, {steps} steps, {found.sampling.images} pictures")
