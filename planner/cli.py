"""The command ``qplan``: estimate, build, inspect and verify packs.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.command_line import exit_on_error
from schemas.errors import UsageError

if TYPE_CHECKING:
    from planner.settings import BuildSettings

app = typer.Typer(
    name="qplan",
    help="Plan and build quantized DiT4SR packs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PRESETS = ("dit4sr",)

ESTIMATE_EXAMPLE = "Example:  qplan estimate --preset dit4sr --target W4A4"
BUILD_EXAMPLE = """
Examples:

qplan build dit4sr.safetensors --target W4A4 --base stable-diffusion-3.5-medium -o model.qpack

qplan build dit4sr/ --target W3.5A4 --keep 'norm1' --allocator exact
"""
INSPECT_EXAMPLE = "Example:  qplan inspect model.qpack --layer 'blocks.0.attn'"
VERIFY_EXAMPLE = "Example:  qplan verify model.qpack"

TargetOption = Annotated[
    str, typer.Option(metavar="WxAy", help="Mean bits: x of 2 to 8, y of 2 to 8 or 16.")
]
Variant = Annotated[str, typer.Option(help="Which published network: q, f or r1.")]
GlobalRank = Annotated[int, typer.Option(help="Rank of the global factors; 0 for none.")]
LocalRank = Annotated[int, typer.Option(help="Budget of the local factors, as a rank; 0 for none.")]
MinimumBits = Annotated[int, typer.Option("--min-bits", help="Fewest weight bits of a layer.")]
MaximumBits = Annotated[int, typer.Option("--max-bits", help="Most weight bits of a layer.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
PackArgument = Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")]


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
    variant: Variant = "q",
    global_rank: GlobalRank = 32,
    local_rank: LocalRank = 8,
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
        from planner.estimate import EstimateSettings
        from planner.estimate import estimate as predict
        from planner.estimate_tables import render

        if (checkpoint is None) == (preset is None):
            raise UsageError("name either a checkpoint or --preset", hint=ESTIMATE_EXAMPLE)
        if preset is not None and preset not in PRESETS:
            raise UsageError(f"there is no preset {preset!r}", hint="one of: " + ", ".join(PRESETS))
        settings = _settings(target, variant=variant, minimum_bits=min_bits, maximum_bits=max_bits)
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
            settings.variant,
        )
        if json_output:
            _print_json(result.to_json())
        else:
            _console().print(render(result))


@app.command(epilog=BUILD_EXAMPLE)
def build(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file."),
    ],
    *,
    target: TargetOption = "W4A4",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The pack. Default: CHECKPOINT-w4a4.qpack.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Stable Diffusion 3.5 medium folder: VAE, scheduler, text encoders."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Positive prompt instead of ours.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="Negative prompt instead of ours.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt embeddings (.safetensors) instead of text.")
    ] = None,
    variant: Variant = "q",
    global_rank: GlobalRank = 32,
    local_rank: LocalRank = 8,
    min_bits: MinimumBits = 2,
    max_bits: MaximumBits = 8,
    allocator: Annotated[str, typer.Option(help="greedy or exact.")] = "greedy",
    rotation: Annotated[
        bool, typer.Option("--rotation/--no-rotation", help="Rotate weights and activations.")
    ] = True,
    rotation_signs: Annotated[
        bool,
        typer.Option("--rotation-signs/--no-rotation-signs", help="Flip random signs first."),
    ] = True,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX", help="Keep matching layers in 16 bits; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of signs and decompositions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older pack.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Build a pack from a checkpoint, without data."""
    with exit_on_error(debug=debug):
        from artifacts.checkpoint import open_checkpoint
        from artifacts.pack_writer import check_output
        from planner.base_model import find_base_model
        from planner.build import build as build_pack
        from planner.progress import BarProgress
        from planner.prompts import DEFAULT_NEGATIVE, DEFAULT_POSITIVE, PromptTexts

        settings = _settings(
            target,
            variant=variant,
            global_rank=global_rank,
            local_rank=local_rank,
            minimum_bits=min_bits,
            maximum_bits=max_bits,
            allocator=allocator,
            rotation=rotation,
            rotation_signs=rotation_signs,
            keep=tuple(keep or ()),
            seed=seed,
        )
        opened = open_checkpoint(checkpoint)
        output = out or _default_output(checkpoint, str(settings.target))
        check_output(output, force=force)  # before any weight is read
        texts = None
        if prompt is not None or negative_prompt is not None:
            texts = PromptTexts(
                DEFAULT_POSITIVE if prompt is None else prompt,
                DEFAULT_NEGATIVE if negative_prompt is None else negative_prompt,
            )
        model = find_base_model(opened, base, embeddings=prompts, texts=texts)
        with BarProgress(enabled=not json_output) as progress:
            result = build_pack(opened, output, settings, model, force=force, progress=progress)
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if json_output:
            from planner.inspection import summary

            _print_json(
                {"pack": str(output), "warnings": result.warnings, **summary(result.manifest)}
            )
        else:
            from planner.inspection import size_text

            print(
                f"{output}: {len(result.manifest.layers)} layers,"
                f" {result.manifest.reached.weight_bits:.4f} mean weight bits, transformer"
                f" {size_text(result.manifest)}"
            )


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
        from artifacts.pack import open_pack
        from planner.inspection import layer_facts, render, select_layers, summary

        opened = open_pack(pack)
        names = select_layers(opened, layer)
        if json_output:
            layers = layer_facts(opened, names)
            _print_json({"pack": str(pack), **summary(opened.manifest), "layers": layers})
        else:
            _console().print(render(opened, names))


@app.command(epilog=VERIFY_EXAMPLE)
def verify(pack: PackArgument, *, json_output: Json = False, debug: Debug = False) -> None:
    """Check every byte of a pack: hashes, shapes, scales, codes, and that the network is whole."""
    with exit_on_error(debug=debug):
        from artifacts.pack import verify_pack
        from planner.network_probe import check_network

        opened = verify_pack(pack)
        check_network(opened.manifest)
        sizes = {name: record.bytes for name, record in opened.manifest.files.items()}
        if json_output:
            _print_json({"pack": str(pack), "ok": True, "files": sizes})
        else:
            print(f"{pack}: ok, {len(sizes)} files, {sum(sizes.values()):,} bytes")


def _config(checkpoint: Path | None) -> Any:
    from artifacts.checkpoint import open_checkpoint
    from schemas.transformer_config import TransformerConfig

    return TransformerConfig() if checkpoint is None else open_checkpoint(checkpoint).config


def _settings(
    target: str, *, minimum_bits: int, maximum_bits: int, **others: Any
) -> "BuildSettings":
    from planner.settings import BuildSettings, check_bounds
    from planner.target import parse_target

    check_bounds(minimum_bits, maximum_bits)  # first: the target is checked against them
    return BuildSettings(
        parse_target(target, minimum_weight_bits=minimum_bits, maximum_weight_bits=maximum_bits),
        minimum_bits=minimum_bits,
        maximum_bits=maximum_bits,
        **others,
    )


def _default_output(checkpoint: Path, target: str) -> Path:
    """A sibling of the checkpoint, named after it, however the user wrote its path."""
    import os

    # Not Path.resolve: a hub cache's link must not be followed to a blob named by its hash.
    plain = Path(os.path.abspath(checkpoint))  # noqa: PTH100
    stem = plain.name if plain.is_dir() else plain.stem
    return plain.parent / f"{stem}-{target.lower()}.qpack"


def _console() -> Any:
    from rich.console import Console

    # Piped output has no width of its own; the tables are made for 100 columns.
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


def _print_json(content: object) -> None:
    from schemas.json_io import format_json

    print(format_json(content), end="")
