"""What each part of ``standard`` is worth: alone, and left out of standard; or added to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.rows import CALIBRATION_PHOTOS, Row
from runtime.bench.workload import Ranks

PAPER = "q-dit4sr-no-vatmp"
"""The paper's recipe as far as it needs no images, as ``standard`` needs none."""
MIXTURE = "standard"
OPERATIONS = "standard-operations"


@dataclass(frozen=True)
class Part:
    """One thing in which ``standard`` differs from the paper, or might.

    Attributes:
        label: for readers.
        ours, papers: settings with it and without it.
        is_in: whether ``standard`` has it.
    """

    label: str
    ours: Mapping[str, Any]
    papers: Mapping[str, Any]
    is_in: bool = True


def parts(ranks: Ranks) -> dict[str, Part]:
    """All of them by name.

    Args:
        ranks: of 16-bit factors; 8-bit ones have twice as many for the same bytes.
    """
    once = {"global_rank": ranks.global_rank, "local_rank": ranks.local_rank}
    twice = {name: 2 * rank for name, rank in once.items()}
    return {
        "weights": Part(
            "weight bits by sensitivity",
            {"weight_allocation": "sensitivity", "weight_statistic": "residual"},
            {"weight_allocation": "vasmp", "weight_statistic": "rotated"},
        ),
        "activations": Part(
            "activation bits by sensitivity",
            {"timestep_allocation": "sensitivity"},
            {"timestep_allocation": "uniform"},
        ),
        "table": Part("table of modulations", {"modulation": "table"}, {"modulation": "weights"}),
        "rows": Part(
            "searched steps of weight rows",
            {"weight_scale": "mse"},
            {"weight_scale": "gaussian"},
            is_in=False,
        ),
        "gptq": Part(
            "rounding by GPTQ",
            {"weight_rounding": "gptq"},
            {"weight_rounding": "nearest"},
        ),
        "fit": Part(
            "factors fitted to outputs",
            {"factor_fit": "outputs"},
            {"factor_fit": "weight"},
        ),
        "smoothing": Part(
            "smoothing before the rotation",
            {"smoothing": "balance"},
            {"smoothing": "none"},
            is_in=False,
        ),
        "tokens": Part(
            "blended steps of tokens",
            {"activation_scale": "blend"},
            {"activation_scale": "gaussian"},
        ),
        "factors": Part(
            "8-bit factors of twice the rank",
            {"factor_bits": 8, **twice},
            {"factor_bits": 16, **once},
        ),
    }


def part_rows(target: str, ranks: Ranks) -> list[Row]:
    """Every part alone, and the mixture without each, or with it, at one target.

    Their rows are paired with the paper's recipe and with the mixture, which are among
    `rows.recipe_rows`; so is the mixture by bit operations, which is there without GPTQ, and
    without fitted factors.
    """
    known = parts(ranks)
    alone = [
        Row(
            target,
            f"only-{name}",
            f"the paper's with {part.label}",
            "part alone",
            recipe=PAPER,
            overrides={**known["factors"].papers, **part.ours},
            against=(PAPER,),
        )
        for name, part in known.items()
    ]
    mixed = [
        Row(
            target,
            f"standard-{'no' if part.is_in else 'with'}-{name}",
            f"standard {'without' if part.is_in else 'with'} {part.label}",
            "part missing" if part.is_in else "part added",
            recipe=MIXTURE,
            overrides={**known["factors"].ours, **(part.papers if part.is_in else part.ours)},
            against=(MIXTURE,),
        )
        for name, part in known.items()
    ]
    operations = [
        Row(
            target,
            f"{OPERATIONS}-no-{name}",
            f"standard without {known[name].label}, no more bit operations either",
            "part missing",
            recipe=MIXTURE,
            overrides={**known["factors"].ours, **known[name].papers, "budget": "bit-operations"},
            against=(OPERATIONS,),
        )
        for name in ("gptq", "fit")
    ]
    return [*alone, *mixed, *operations, *_thorough_rows(target, known["factors"].ours)]


def _thorough_rows(target: str, ranks: Mapping[str, Any]) -> list[Row]:
    """Mixtures whose factors and rounding are searched for thoroughly."""
    variants: dict[str, tuple[Mapping[str, Any], int]] = {
        MIXTURE: ({}, 0),
        f"{MIXTURE}-photos": ({}, CALIBRATION_PHOTOS),
        OPERATIONS: ({"budget": "bit-operations"}, 0),
        f"{OPERATIONS}-photos": ({"budget": "bit-operations"}, CALIBRATION_PHOTOS),
    }
    return [
        Row(
            target,
            f"{name}-thorough",
            f"{name}, thoroughly searched",
            "part added",
            recipe=MIXTURE,
            overrides={**ranks, **more, "effort": "thorough"},
            photos=photos,
            against=(name.removesuffix("-photos"),),
        )
        for name, (more, photos) in variants.items()
    ]
