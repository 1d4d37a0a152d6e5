"""The measured results as a page."""

from typing import Any


def page(result: dict[str, Any]) -> str:
    """Markdown of everything in ``result``; phases that did not run are left out."""
    lines = [
        f"# The CUDA backend on {result['device']}",
        "",
        f"Measured{_on(result.get('date'))}, compute capability {result['capability']}, torch"
        f" {result['torch']}, Triton {result['triton']}, by",
        "",
        "```",
        result["command"],
        "```",
        "",
    ]
    parts = {"parity": _parity, "products": _products, "step": _step, "tune": _tune}
    for name, part in parts.items():
        if name in result:
            lines += [*part(result[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _on(date: str | None) -> str:
    return f" on {date}" if date else ""


def _parity(rows: list[dict[str, Any]]) -> list[str]:
    failed = [row for row in rows if not row["passed"]]
    lines = [
        "## Parity",
        "",
        f"{len(rows) - len(failed)} of {len(rows)} comparisons with plain torch hold.",
    ]
    if failed:
        lines += ["", "| failed | |", "|---|---|"]
        lines += [f"| {row['name']} | {row['detail']} |" for row in failed]
    return lines


def _products(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Single layers",
        "",
        "W4A4 with ranks 32 and 8, bfloat16 in and out: quantization, factors, product and bias,"
        " against one product of cuBLAS in bfloat16. Microseconds, median of all rounds (lowest"
        " to highest); inputs come from memory, not from the cache. In brackets: times as fast"
        " as cuBLAS.",
        "",
        "| tokens, in → out | cuBLAS bf16 | int8 | packed | int8 without `prepare` | `prepare` |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        us, faster = row["us"], row["times_faster"]
        ready = "thin and product, int8"
        lines.append(
            f"| {row['tokens']}, {row['in']} → {row['out']} | {_time(us['cuBLAS bf16'])}"
            f" | {_time(us['int8'])} ({faster['int8']:.2f})"
            f" | {_time(us['packed'])} ({faster['packed']:.2f})"
            f" | {_time(us[ready])} ({faster[ready]:.2f}) | {_time(us['prepare, int8'])} |"
        )
    return lines


def _time(spread: dict[str, float]) -> str:
    return f"{spread['median']:.1f} ({spread['lowest']:.1f} to {spread['highest']:.1f})"


def _step(step: dict[str, Any]) -> list[str]:
    tokens = step["tokens"]
    lines = [
        "## A whole step",
        "",
        f"24 blocks of full width, random weights, batch {tokens['batch']}, {tokens['image']}"
        f" image, {tokens['image']} control and {tokens['text']} text tokens (512x512 with"
        " guidance), W4A4. Milliseconds, median of all rounds (lowest to highest).",
        "",
        "| | ms |",
        "|---|---|",
    ]
    for name, spread in step["us"].items():
        milliseconds = {key: value / 1e3 for key, value in spread.items()}
        low, high = milliseconds["lowest"], milliseconds["highest"]
        lines.append(f"| {name} | {milliseconds['median']:.2f} ({low:.2f} to {high:.2f}) |")
    lines += [f"| {name} | did not run: {why} |" for name, why in step["skipped"].items()]
    lines += ["", "| times as fast | asked | reached |", "|---|---|---|"]
    for row in step["targets"]:
        lines.append(
            f"| {row['fast']} against {row['peer']} | {row['asked']:.2f} | {row['reached']:.2f} |"
        )
    lines += ["", "| linear layers in memory | bytes | share of bf16 |", "|---|---|---|"]
    for name, memory in step["resident"].items():
        lines.append(f"| {name} | {memory['bytes']:,} | {memory['share_of_bf16']:.3f} |")
    return lines


def _tune(rows: dict[str, Any]) -> list[str]:
    return ["## Tile sizes", "", f"{len(rows)} rows of `table.json` were refreshed."]
