"""What is compared: every row of the tables, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from runtime.bench.workload import Ranks

MAIN_TARGETS = ("W4A4", "W4A6", "W3A4", "W8A8")
WEIGHT_ONLY_TARGET = "W4A16"
DIAGNOSTIC_TARGET = "W8A4"
SWEEP_TARGETS = ("W2A16", "W3A16", "W5A16", "W6A16", "W8A16")
CODEBOOK_TARGET = "W4A8"
"""Of comfy-kitchen's codebook layers."""
PEER_TARGETS = (WEIGHT_ONLY_TARGET, CODEBOOK_TARGET)

CALIBRATION_PHOTOS = 32

COMFY_LAYERS = {
    "W4A4": ("convrot_w4a4", "rotated W4A4"),
    CODEBOOK_TARGET: ("w4a8_int8", "codebook W4A8, groups of 16"),
}
"""Target -> comfy-kitchen's layer and its label."""


@dataclass(frozen=True)
class Row:
    """One network to measure.

    Attributes:
        target: bits asked for, ``W4A4``.
        name: of the row within its target; with ``@32+8`` where ranks are not the main ones.
        label: for readers.
        family: for the eye: rows of one method.
        second: whether it belongs to the second set of ranks.
        recipe: name of the planner's recipe; empty for a peer.
        overrides: settings that differ from the recipe's.
        sdnq: settings of that peer; empty for others.
        comfy: settings of the peer comfy-kitchen; empty for others.
        photos: how many calibration images sensitivities come from; 0 for generated pictures.
        against: names of the rows that this one is paired with, in the same target.
    """

    target: str
    name: str
    label: str
    family: str
    second: bool = False
    recipe: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    sdnq: Mapping[str, Any] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    comfy: Mapping[str, Any] = field(default_factory=dict)
    photos: int = 0

    @property
    def peer_settings(self) -> Mapping[str, Any]:
        """Settings of whichever peer it is; empty for a recipe."""
        return self.sdnq or self.comfy

    @property
    def full_name(self) -> str:
        """Name among all rows."""
        return f"{self.target}/{self.name}"

    def settings(self) -> dict[str, Any]:
        """What the network depends on, as JSON values; labels and pairings are not part of it."""
        everything = asdict(self)
        found = {key: everything[key] for key in ("target", "recipe", "overrides", "sdnq")}
        # Left out where unused, so that rows measured before these were there are found again.
        return found | {key: everything[key] for key in ("comfy", "photos") if everything[key]}


def is_narrow(target: str) -> bool:
    """Whether activations are so narrow that VaTMP is on: the rows differ most there."""
    return float(target.partition("A")[2]) < 6


def recipe_rows(target: str, ranks: Ranks, *, second: bool) -> list[Row]:
    """The recipes, the paper's chain and the ablations at one target, chain in order.

    Args:
        target: bits asked for.
        ranks: of every row that has factors.
        second: leave out what has no factors, and mark the names.
    """
    at = f"@{ranks}" if second else ""
    both = {"global_rank": ranks.global_rank, "local_rank": ranks.local_rank}
    hsvd, vasmp, full = f"hsvd{at}", f"q-dit4sr-no-vatmp{at}", f"q-dit4sr{at}"
    twice = {name: 2 * rank for name, rank in both.items()}
    rows: list[Row] = []

    def add(name: str, label: str, family: str, **more: Any) -> None:
        rows.append(Row(target, f"{name}{at}", label, family, second, **more))

    if not second:
        add("rtn", "RTN", "RTN", recipe="rtn", against=("quarot",))
        add("quarot", "QuaRot: rotation", "QuaRot", recipe="quarot", against=("rtn",))
    svd_ranks = [ranks.global_rank]
    if target == MAIN_TARGETS[0]:  # and one that stores as much as both kinds of factors
        svd_ranks.append(ranks.global_rank + ranks.local_rank)
    for rank in svd_ranks:
        add(
            f"svdquant-r{rank}",
            f"SVDQuant, rank {rank}",
            "SVDQuant",
            recipe="svdquant",
            overrides={"global_rank": rank},
            against=("quarot",),
        )
    add(
        "global",
        "rotation + global factors",
        "chain",
        recipe="quarot",
        overrides={"global_rank": ranks.global_rank},
        against=("quarot",),
    )
    add(
        "hsvd",
        "+ local factors (H-SVD)",
        "chain",
        recipe="quarot",
        overrides=both,
        against=(f"global{at}", "quarot"),
    )
    add(
        "q-dit4sr-no-vatmp",
        "+ VaSMP",
        "chain",
        recipe="q-dit4sr-no-vatmp",
        overrides=both,
        against=(hsvd, "quarot"),
    )
    add(
        "q-dit4sr",
        "+ VaTMP = Q-DiT4SR",
        "Q-DiT4SR",
        recipe="q-dit4sr",
        overrides=both,
        against=(vasmp, "quarot"),
    )
    add(
        "q-dit4sr-residual",
        "Q-DiT4SR, VaSMP on residuals",
        "ours",
        recipe="q-dit4sr-residual",
        overrides=both,
        against=(full, "quarot"),
    )
    add(
        "standard",
        "standard: bits by sensitivity",
        "ours",
        recipe="standard",
        # Of the same bytes: its factors have 8 bits.
        overrides=twice,
        against=(full, f"q-dit4sr-residual{at}"),
    )
    if not second:
        add(
            "standard-photos",
            f"standard, probed with {CALIBRATION_PHOTOS} photos",
            "ours",
            recipe="standard",
            overrides=twice,
            photos=CALIBRATION_PHOTOS,
            against=(full, f"standard{at}"),
        )
    add(
        "standard-operations",
        "standard, no more bit operations either",
        "ours",
        recipe="standard",
        overrides={**twice, "budget": "bit-operations"},
        against=(full, f"standard{at}"),
    )
    add(
        "q-dit4sr-no-signs",
        "Q-DiT4SR without signs",
        "ablation",
        recipe="q-dit4sr-no-signs",
        overrides=both,
        against=(full, "quarot"),
    )
    if not second:
        add(
            "q-dit4sr-no-hsvd",
            "Q-DiT4SR without H-SVD",
            "ablation",
            recipe="q-dit4sr-no-hsvd",
            against=(full, "quarot"),
        )
    add(
        "q-dit4sr-no-vasmp",
        "Q-DiT4SR without VaSMP",
        "ablation",
        recipe="q-dit4sr-no-vasmp",
        overrides=both,
        against=(full, "quarot"),
    )
    return rows


def peer_rows(target: str, ranks: Ranks, second: Ranks) -> list[Row]:
    """Outside peers at a target.

    SDNQ quantizes weights alone, or with the 8-bit activations of its own matrix product;
    comfy-kitchen has one kind of layer for W4A4 and one for W4A8.
    """
    rows: list[Row] = []

    def add(name: str, label: str, *, wide: bool = False, **sdnq: Any) -> None:
        ours = f"q-dit4sr@{second}" if wide else "q-dit4sr"
        rows.append(Row(target, name, label, "SDNQ", wide, sdnq=sdnq, against=(ours, "quarot")))

    rotated = {"use_hadamard": True, "use_svd": True}
    if target == WEIGHT_ONLY_TARGET:
        add("sdnq-int4", "SDNQ int4, its defaults", weights_dtype="int4")
        for rank in (ranks.global_rank, second.global_rank):
            add(
                f"sdnq-int4-svd{rank}-hadamard",
                f"SDNQ int4, SVD rank {rank}, Hadamard",
                wide=rank == second.global_rank,
                weights_dtype="int4",
                svd_rank=rank,
                **rotated,
            )
        add(
            f"sdnq-int4-svd{ranks.global_rank}-hadamard-g64",
            f"SDNQ int4 in groups of 64, SVD rank {ranks.global_rank}, Hadamard",
            weights_dtype="int4",
            svd_rank=ranks.global_rank,
            group_size=64,
            **rotated,
        )
        add(
            f"sdnq-uint4-svd{ranks.global_rank}-hadamard",
            f"SDNQ uint4 (asymmetric), SVD rank {ranks.global_rank}, Hadamard",
            weights_dtype="uint4",
            svd_rank=ranks.global_rank,
            **rotated,
        )
    elif target == "W8A8":
        add(
            "sdnq-int8-mm",
            "SDNQ int8, its int8 product",
            weights_dtype="int8",
            use_quantized_matmul=True,
        )
    elif target in COMFY_LAYERS:
        layer, label = COMFY_LAYERS[target]
        rows.append(
            Row(
                target,
                f"comfy-{layer.replace('_', '-')}",
                f"comfy-kitchen, {label}",
                "comfy-kitchen",
                against=("q-dit4sr", "quarot"),
                comfy={"layer": layer},
            )
        )
    return rows


def plan(
    targets: Sequence[str],
    ranks: Ranks,
    second: Ranks,
    *,
    peers: bool = True,
    diagnose: bool = False,
    sweep: bool = False,
) -> list[Row]:
    """All rows, target by target, in the order of the tables.

    Args:
        targets: those of the main tables.
        ranks: of the main rows.
        second: the second set of ranks.
        peers: add the outside peers, and the targets at which they can be met.
        diagnose: add a target whose error is almost all the activations'.
        sweep: add weights alone at every width.
    """
    best = [f"svdquant-r{second.global_rank}@{second}", f"q-dit4sr@{second}"]

    def some(target: str, names: Sequence[str]) -> list[Row]:
        rows = [
            *recipe_rows(target, ranks, second=False),
            *recipe_rows(target, second, second=True),
        ]
        return [row for row in rows if row.name in names]

    found: list[Row] = []
    for target in targets:
        found += recipe_rows(target, ranks, second=False)
        in_second = recipe_rows(target, second, second=True)
        found += [row for row in in_second if is_narrow(target) or row.name in best]
        found += peer_rows(target, ranks, second) if peers else []
    few = ["quarot", "q-dit4sr", best[-1]]
    extra = {target: few for target in PEER_TARGETS if peers}
    if diagnose:
        extra[WEIGHT_ONLY_TARGET] = extra[DIAGNOSTIC_TARGET] = [
            *few,
            *("rtn", f"svdquant-r{ranks.global_rank}", "global", "hsvd", "q-dit4sr-no-vatmp"),
        ]
    if sweep:
        sweep_names = ["rtn", "quarot", "q-dit4sr"]
        extra.setdefault(WEIGHT_ONLY_TARGET, sweep_names)
        extra.update(dict.fromkeys(SWEEP_TARGETS, sweep_names))
    for target, names in extra.items():
        if target not in targets:
            found += some(target, names)
            found += peer_rows(target, ranks, second) if peers else []
    there = {row.full_name for row in found}
    return [
        replace(row, against=tuple(n for n in row.against if f"{row.target}/{n}" in there))
        for row in found
    ]
