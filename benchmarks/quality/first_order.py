"""How far the first-order model of `planner.allocate.sensitivity` can be believed.

    python -m benchmarks.quality.first_order --out docs/results

Predicts the error of the final latent of several packs from the sensitivities and the residuals
alone, measures it, and prints both, in dB of the latent: packs whose bits are the same everywhere,
of weights alone, of activations alone and of both, and packs of recipe `standard`. With --out also
a table and a plot. A sum of independent errors, to first order, is what the allocation minimises;
where the prediction is wrong, so is what it does.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.quality.intervals import per_image
from benchmarks.quality.measure import Bench, measure
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.plots import predicted_and_measured
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import start
from planner.allocate.error_shares import kappa
from planner.allocate.sensitivity import activation_costs, weight_costs
from planner.build.layers import weight_statistics
from runtime.sampling.bit_schedule import BitSchedule
from schemas.bit_grid import BitGrid
from schemas.json_io import format_json

NAME = "quality_first_order"
_SAME = {"weight_allocation": "uniform", "timestep_allocation": "uniform"}
_OVERRIDES = {
    "global_rank": 8,
    "local_rank": 4,
    "weight_rounding": "nearest",
    "factor_fit": "weight",
}
PACKS: dict[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "same bits": (("W3A16", "W4A16", "W6A16", "W8A3", "W8A4", "W8A6", "W4A4", "W6A6"), _SAME),
    "standard": (("W2A4", "W3A4", "W4A4", "W4A6", "W6A6"), {}),
    "standard, by operations": (("W3A4", "W4A4", "W6A6"), {"budget": "bit-operations"}),
}
"""Label -> targets, and what differs from the recipe."""


@dataclass(frozen=True)
class Point:
    """One pack; errors in dB of the final latent, means over crops.

    Attributes:
        weights_db, activations_db: predicted parts; infinite where nothing is quantized.
        predicted_db: of their sum.
    """

    label: str
    target: str
    weights_db: float
    activations_db: float
    predicted_db: float
    measured_db: float


def main() -> None:
    """Measure, print and write."""
    arguments, bench, maker = start(
        __doc__, crops=6, more=lambda parser: parser.add_argument("--out", type=Path)
    )
    points = []
    for label, (targets, changes) in PACKS.items():
        for target in targets:
            point = compare(bench, maker, label, target, changes)
            points.append(point)
            print(
                f"{label:24} {target:6} predicted {point.predicted_db:6.2f} dB (weights"
                f" {point.weights_db:.2f}, activations {point.activations_db:.2f}), measured"
                f" {point.measured_db:6.2f} dB",
                flush=True,
            )
    if arguments.out is not None:
        write(points, arguments.out)


def compare(
    bench: Bench, maker: PackMaker, label: str, target: str, changes: Mapping[str, str]
) -> Point:
    """Predict and measure one pack."""
    row = Row(
        target, "first-order", label, "ours", recipe="standard", overrides=_OVERRIDES | changes
    )
    with maker.pack(row) as pack:
        network = maker.load(pack).network
        schedule = BitSchedule(pack.bit_grid)
        values = measure(bench, network, schedule, lambda *_: None)["latent_db"]
        weights, activations = predict(maker, row, pack.bit_grid)
    power = sum(float(z.square().mean()) for case in bench.references for z in case)
    power /= sum(map(len, bench.references))
    return Point(
        label,
        target,
        _db(weights, power),
        _db(activations, power),
        _db(weights + activations, power),
        float(per_image(values).mean()),
    )


def predict(maker: PackMaker, row: Row, grid: BitGrid) -> tuple[float, float]:
    """Mean squared error of the latent from weights and from activations, per element."""
    settings = maker.settings(row).resolved(maker.checkpoint)
    statistics = weight_statistics(maker.checkpoint, settings)
    weight = weight_costs(statistics, maker.sensitivity)
    activation = activation_costs(statistics, maker.sensitivity).layers
    layers = grid.layers
    return (
        math.fsum(cost * kappa(layers[name].weight_bits) for name, cost in weight.items()),
        math.fsum(
            cost * kappa(bits)
            for name, costs in activation.items()
            for cost, bits in zip(costs, layers[name].activation_bits, strict=True)
        ),
    )


def _db(error: float, power: float) -> float:
    return 10 * math.log10(power / error) if error else math.inf


def write(points: list[Point], out: Path) -> None:
    """Table, numbers and plot."""
    out.mkdir(parents=True, exist_ok=True)
    predicted_and_measured(
        [(p.label, p.target, p.predicted_db, p.measured_db) for p in points], out / f"{NAME}.png"
    )
    rows = [{k: _finite(v) for k, v in asdict(point).items()} for point in points]
    (out / f"{NAME}.json").write_text(format_json({"points": rows}))
    lines = [
        "# The first-order model, predicted against measured",
        "",
        "`python -m benchmarks.quality.first_order --out docs/results`: error of the final latent,",
        "dB, 6 crops, 8 steps, ranks 8 and 4 with 8 bits, a table of modulations.",
        "",
        f"![predicted against measured]({NAME}.png)",
        "",
        "| pack | target | weights alone, predicted | activations alone, predicted |"
        " both, predicted | measured |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.label} | {p.target} | {_shown(p.weights_db)} | {_shown(p.activations_db)} |"
        f" {p.predicted_db:.2f} | {p.measured_db:.2f} |"
        for p in points
    ]
    (out / f"{NAME}.md").write_text("\n".join(lines) + "\n")


def _shown(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _finite(value: object) -> object:
    return None if value == math.inf else value


if __name__ == "__main__":
    main()
