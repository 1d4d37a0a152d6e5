"""The command ``qplan``: estimate, build, calibrate, inspect, diff and verify.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from artifacts.cli.exit_codes import exit_on_error
from planner.cli.build import BUILD_EXAMPLE, CALIBRATE_EXAMPLE, build, calibrate
from planner.cli.diff import DIFF_EXAMPLE, diff
from planner.cli.options import (
    Debug,
    Json,
    MaximumBits,
    MinimumBits,
    TargetOption,
    Variant,
    console,
    print_json,
    recipe_options,
)
from schemas.errors import UsageError

app = typer.Typer(
    name="qplan",
    help="Plan and build quantized DiT4SR packs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PRESETS = ("dit4sr",)

ESTIMATE_EXAMPLE = "Example:  qplan estimate --preset dit4sr --target W4A4"
INSPECT_EXAMPLE = "Example:  qplan inspect model.qpack --layer 'blocks.0.attn'"
VERIFY_EXAMPLE = "Example:  qplan verify model.qpack"

PackArgument = Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")]


app.command(epilog=BUILD_EXAMPLE)(build)
app.command(epilog=CALIBRATE_EXAMPLE)(calibrate)


def main() -> None:
    """Run ``qplan``."""
    app()


@app.command(epilog=ESTIMATE_EXAMPLE)
def estimate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file."),
    ] = None,
    *,
    preset: Annotated[
        str | None, typer.Option(help="A known network instead: " + ", ".join(PRESETS))
    ] = None,
    target: TargetOption = "W4A4",
    variant: Variant = None,
    global_rank: Annotated[int, typer.Option(help="Rank of the global factors.")] = 32,
    local_rank: Annotated[int, typer.Option(help="Budget of the local factors, as a rank.")] = 8,
    min_bits: MinimumBits = 2,
    max_bits: MaximumBits = 8,
    resolution: Annotated[int, typer.Option(help="Side of the result, in px.")] = 512,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 40,
    text_tokens: Annotated[int, typer.Option(help="Length of the prompt.")] = 333,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Predict sizes, operations and distortion; build nothing and read no weights."""
    with exit_on_error(debug=debug):
        from artifacts.dit4sr.family import FAMILY
        from planner.estimate.estimate import EstimateSettings
        from planner.estimate.estimate import estimate as predict
        from planner.estimate.tables import render

        if (checkpoint is None) == (preset is None):
            raise UsageError("name either a checkpoint or --preset", hint=ESTIMATE_EXAMPLE)
        if preset is not None and preset not in PRESETS:
            raise UsageError(f"there is no preset {preset!r}", hint="one of: " + ", ".join(PRESETS))
        settings = recipe_options(
            "q-dit4sr", target, min_bits=min_bits, max_bits=max_bits, variant=variant
        )
        result = predict(
            _config(checkpoint),
            settings.target,
            EstimateSettings(
                global_rank=global_rank,
                local_rank=local_rank,
                minimum_bits=min_bits,
                maximum_bits=max_bits,
                steps=steps,
                resolution_px=resolution,
                text_tokens=text_tokens,
            ),
            FAMILY.check_variant(settings.variant or "q"),  # type: ignore[arg-type]
        )
        if json_output:
            print_json(result.to_json())
        else:
            console().print(render(result))


@app.command(epilog=INSPECT_EXAMPLE)
def inspect(
    pack: PackArgument,
    *,
    layer: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only layers whose name matches.")
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a pack holds: sizes, settings, and every layer's bits, factors and error."""
    with exit_on_error(debug=debug):
        from artifacts.pack.reader import open_pack
        from planner.inspect.inspection import layer_facts, render, select_layers, summary

        opened = open_pack(pack)
        names = select_layers(opened, layer)
        if json_output:
            layers = layer_facts(opened, names)
            print_json({"pack": str(pack), **summary(opened.manifest), "layers": layers})
        else:
            console().print(render(opened, names))


app.command(epilog=DIFF_EXAMPLE)(diff)


@app.command(epilog=VERIFY_EXAMPLE)
def verify(pack: PackArgument, *, json_output: Json = False, debug: Debug = False) -> None:
    """Check every byte of a pack: hashes, shapes, scales, codes, and that the network is whole."""
    with exit_on_error(debug=debug):
        from artifacts.pack.reader import verify_pack
        from planner.build.network_probe import check_network

        opened = verify_pack(pack)
        check_network(opened.manifest)
        sizes = {name: record.bytes for name, record in opened.manifest.files.items()}
        if json_output:
            print_json({"pack": str(pack), "ok": True, "files": sizes})
        else:
            print(f"{pack}: ok, {len(sizes)} files, {sum(sizes.values()):,} bytes")


def _config(checkpoint: Path | None) -> Any:
    from artifacts.checkpoint.reader import open_checkpoint
    from schemas.transformer_config import TransformerConfig

    return TransformerConfig() if checkpoint is None else open_checkpoint(checkpoint).config
