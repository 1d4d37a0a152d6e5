"""What was measured, for the whole network and for people."""

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = (
    "measure",
    "rotate",
    "global factors",
    "local factors",
    "subtract global",
    "subtract local",
    "quantize",
    "pack codes",
)


def network_cost(shapes: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The network's cost from those of its shapes, weighted by their weights.

    Returns:
        ``planner`` and ``peer`` in processor milliseconds per million weights, ``planner_s`` and
        ``peer_s`` in processor seconds for all layers, and ``ratio_to_sdnq``. Without a peer, its
        numbers are None.
    """
    millions = sum(shape["million_weights"] for shape in shapes)
    planner = sum(shape["planner"] * shape["million_weights"] for shape in shapes)
    found = {"planner": planner / millions, "planner_s": planner / 1e3}
    if any(shape["peer"] is None for shape in shapes):
        return {**found, "peer": None, "peer_s": None, "ratio_to_sdnq": None}
    peer = sum(shape["peer"] * shape["million_weights"] for shape in shapes)
    return {
        **found,
        "peer": peer / millions,
        "peer_s": peer / 1e3,
        "ratio_to_sdnq": planner / peer,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown tables."""
    lines = [f"{result['unit']}, recipe {result['recipe']}, effort {result['effort']}", ""]
    lines += _row("shape", "layers", *SHOWN, "other", "planner", "SDNQ", "ratio")
    lines += _row(*["---"] * (len(SHOWN) + 6))
    for shape in result["shapes"]:
        stages, peer = shape["stages"], shape["peer"]
        listed = [stages.get(stage, 0.0) for stage in SHOWN]
        size = "×".join(map(str, shape["shape"]))
        costs = [*listed, shape["planner"] - sum(listed), shape["planner"]]
        ratio = shape["planner"] / peer if peer else None
        lines += _row(
            size,
            f"{shape['timed']} of {shape['layers']}",
            *map(_number, costs),
            _number(peer),
            _number(ratio, 2),
        )
    lines += ["", f"all layers: {_number(result['planner'])}, {result['planner_s']:.0f} s in all"]
    if result["ratio_to_sdnq"] is not None:
        lines[-1] += (
            f"; SDNQ: {_number(result['peer'])}, {result['peer_s']:.0f} s;"
            f" ratio {result['ratio_to_sdnq']:.2f}"
        )
    if "builds" in result:
        lines += ["", *_row("blocks", "million weights", "wall s", "processor s", "peak GiB")]
        lines += _row(*["---"] * 5)
        for build in result["builds"]:
            lines += _row(
                build["blocks"],
                f"{build['million_weights']:.0f}",
                _number(build["wall_s"]),
                _number(build["processor_s"]),
                _number(build["peak_gib"], 2),
            )
    if "accuracy" in result:
        names = ("global_lost", "local_lost", "residual_db", "layer_db")
        lines += ["", *_row("weight", "effort", *names), *_row(*["---"] * 6)]
        for row in result["accuracy"]:
            lines += _row(row["weight"], row["effort"], *(_number(row[name], 4) for name in names))
    return "\n".join(lines)


def _row(*cells: object) -> list[str]:
    return ["| " + " | ".join(map(str, cells)) + " |"]


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
