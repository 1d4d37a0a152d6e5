"""Options that several commands of ``qplan`` share, and what they mean.

Nothing heavy is imported here: ``--help`` goes through this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.cli.output import tell, terminal

if TYPE_CHECKING:
    from artifacts.cli.terminal import Terminal
    from planner.settings import BuildSettings

CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A diffusers folder or a .safetensors file.")
]
TargetOption = Annotated[
    str, typer.Option(metavar="WxAy", help="Mean bits: x of 2 to 8, y of 2 to 8 or 16.")
]
Variant = Annotated[
    str | None,
    typer.Option(
        help="Which published network; of DiT4SR: q, f or r1 (default: as it is named, or q)."
    ),
]
MinimumBits = Annotated[int, typer.Option("--min-bits", help="Fewest weight bits of a layer.")]
MaximumBits = Annotated[int, typer.Option("--max-bits", help="Most weight bits of a layer.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

# The recipe's own choice stands wherever one of these is not given.
GlobalRank = Annotated[int | None, typer.Option(help="Rank of the global factors; 0 for none.")]
LocalRank = Annotated[
    int | None,
    typer.Option(help="Budget of the local factors, as a rank; 0 for none."),
]
Allocator = Annotated[
    str | None, typer.Option(help="How VaSMP's integer problem is solved: greedy (default), exact.")
]
Vasmp = Annotated[
    bool | None,
    typer.Option("--vasmp/--no-vasmp", help="Weight bits by layer, or the same in all."),
]
WeightStatistic = Annotated[
    str | None,
    typer.Option(help="Whose variance VaSMP reads: rotated (the weight's; default) or residual."),
]
Vatmp = Annotated[
    bool | None,
    typer.Option(
        "--vatmp/--no-vatmp",
        help="Activation bits by timestep, from a calibration (default: below 6 bits).",
    ),
]
Segments = Annotated[
    int | None, typer.Option(help="Most runs of equal activation bits over a layer's timesteps.")
]
RotationOption = Annotated[
    bool | None,
    typer.Option("--rotation/--no-rotation", help="Rotate weights and activations."),
]
RotationSigns = Annotated[
    bool | None,
    typer.Option("--rotation-signs/--no-rotation-signs", help="Flip random signs first."),
]
SoftmaxBits = Annotated[
    int | None,
    typer.Option(help="Bits of attention probabilities: 8, or 16 for unquantized (default)."),
]
Modulation = Annotated[
    str | None,
    typer.Option(
        help="Of layers that read timestep and pooled prompt alone: weights, the table of what they"
        " give at the pack's steps and prompts, or both (default: weights; standard: table)."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="What bits by sensitivity keep to the target: bytes (default), or bit-operations too."
    ),
]
FactorBits = Annotated[
    int | None, typer.Option(help="Bits of the factors' numbers: 16 (bfloat16), or 8.")
]
WeightScale = Annotated[
    str | None, typer.Option(help="Step of a weight's row: gaussian, absmax or mse (searched).")
]
WeightRounding = Annotated[
    str | None,
    typer.Option(
        help="How weights become codes: nearest, or gptq, by what layers are fed (needs --base)."
    ),
]
FactorFit = Annotated[
    str | None,
    typer.Option(
        help="What global factors come near to: the weight, or the layer's outputs as rounding"
        " leaves them, by what layers are fed (needs --base): weight or outputs."
    ),
]
Smoothing = Annotated[
    str | None,
    typer.Option(
        help="Channels evened out: none, balance (by what layers are fed, ahead of the rotation;"
        " needs --base), or search (by largest magnitudes, without rotation; needs --calib)."
    ),
]
ActivationScale = Annotated[
    str | None,
    typer.Option(help="Step of a token: gaussian, absmax, or blend, halfway between them."),
]
Effort = Annotated[
    str | None,
    typer.Option(help="How hard to look for factors and rounding: fast, normal or thorough."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="REGEX", help="Keep matching layers in 16 bits; repeatable."),
]
Seed = Annotated[int, typer.Option(help="Seed of signs and decompositions.")]


def recipe_options(
    recipe: str, target: str, *, min_bits: int, max_bits: int, **options: Any
) -> "BuildSettings":
    """Settings of ``recipe`` with every option in its place that is not None.

    Raises:
        UsageError: there is no such recipe, the target cannot be reached, or a value is wrong.
    """
    from planner.recipes import recipe_settings
    from planner.settings import check_bounds
    from planner.target import parse_target

    check_bounds(min_bits, max_bits)  # first: the target is checked against them
    return recipe_settings(
        recipe,
        parse_target(target, minimum_weight_bits=min_bits, maximum_weight_bits=max_bits),
        minimum_bits=min_bits,
        maximum_bits=max_bits,
        **{name: value for name, value in options.items() if value is not None},
    )


def allocation(chosen: bool | None, name: str) -> str | None:
    """What ``--name/--no-name`` says about an allocation; None where it is not given."""
    if chosen is None:
        return None
    return name if chosen else "uniform"


def show_notes(notes: Sequence[str]) -> None:
    """Print what the user should know, and need not do anything about, on stderr."""
    for note in notes:
        tell(f"note: {note}")


def warn(text: str) -> None:
    """Print what the user should look at, on stderr."""
    tell(f"warning: {text}")


def console() -> "Terminal":
    """Where tables are printed: stdout. The tables are made for 100 columns."""
    return terminal(piped_width=100)
