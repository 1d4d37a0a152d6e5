"""The paper's tables as rows of `benchmarks.quality`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.quality.rows import Row, recipe_rows
from runtime.bench.workload import Ranks

TARGETS = ("W4A6", "W4A4")
ABLATION_TARGET = "W4A4"
RANKS = Ranks(4, 2)
"""The paper's 32+8 in the bundled model's width."""
LOCAL_RANKS = {4: 1, 8: 2, 16: 4, 32: 8}
"""The paper's r_L -> the one that stands for it beside `RANKS`."""
MP = "mp"
"""Name of the row whose weight bits go by every layer's own end-to-end error."""
UNIFORM = "q-dit4sr-no-vasmp"

LEARNED = {
    "q-diffusion": "Q-Diffusion",
    "efficientdm": "EfficientDM",
    "ptq4dit": "PTQ4DiT",
    "q-dit": "Q-DiT",
    "passionsr": "PassionSR",
    "flatquant": "FlatQuant",
    "quest": "QuEST",
}
"""Compared methods that learn, as methods of `benchmarks.learned`, which measures them."""
MISSING_METRICS = ("LPIPS", "MUSIQ", "MANIQA", "CLIPIQA", "LIQE")
"""Metrics of the paper that need weights from elsewhere; `qrun eval` takes them where they are."""


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        number: in the paper.
        title: what it compares.
        rows: in the order of the table.
        note: how it differs from the paper's; one line.
        learned: methods of `benchmarks.learned` that belong to it.
    """

    number: int
    title: str
    rows: tuple[Row, ...]
    note: str
    learned: Mapping[str, str] = field(default_factory=dict)


def tables() -> list[PaperTable]:
    """All tables, with rows that several of them have under one name."""
    return [
        PaperTable(
            1,
            "Methods",
            tuple(row for target in TARGETS for row in _methods(target)),
            "Methods that learn are their ideas in this project's setting, of"
            " `python -m benchmarks.learned`, which says what each took. Missing are the metrics"
            f" {', '.join(MISSING_METRICS)}.",
            LEARNED,
        ),
        PaperTable(
            2,
            "Rank of the local factors",
            tuple(_local_rank(paper, rank) for paper, rank in LOCAL_RANKS.items()),
            "Ranks scaled with the width: r_L 1, 2, 4, 8 stand for the paper's 4, 8, 16, 32.",
        ),
        PaperTable(
            3,
            "Weight bits by layer",
            (
                _named(ABLATION_TARGET, UNIFORM, "the same bits everywhere"),
                _mixed_precision(),
                _named(ABLATION_TARGET, "q-dit4sr", "VaSMP"),
            ),
            "MP: each layer is quantized alone, and bits go by the error of the final latent that"
            " it makes, on generated pictures; all else is the same in the three rows.",
        ),
        PaperTable(
            4,
            "Parts",
            tuple(
                _named(ABLATION_TARGET, name, label)
                for name, label in (
                    ("quarot", "rotation"),
                    ("global", "+ global factors"),
                    ("hsvd", "+ local factors (H-SVD)"),
                    ("q-dit4sr-no-vatmp", "+ VaSMP"),
                    ("q-dit4sr", "+ VaTMP"),
                )
            ),
            "Each row has everything of the row before it.",
        ),
    ]


def _methods(target: str) -> list[Row]:
    names = ("rtn", "quarot", f"svdquant-r{RANKS.global_rank}", "q-dit4sr", "standard")
    return [_named(target, name) for name in names]


def _named(target: str, name: str, label: str | None = None) -> Row:
    row = next(r for r in recipe_rows(target, RANKS, second=False) if r.name == name)
    return replace(row, label=label or row.label, against=())


def _local_rank(paper: int, rank: int) -> Row:
    row = _named(ABLATION_TARGET, "q-dit4sr", f"r_L {rank} for the paper's {paper}")
    if rank == RANKS.local_rank:
        return row
    return replace(row, name=f"q-dit4sr-l{rank}", overrides={**row.overrides, "local_rank": rank})


def _mixed_precision() -> Row:
    row = _named(ABLATION_TARGET, UNIFORM, "MP: by end-to-end error")
    return replace(row, name=MP)
