"""Puts a report together: one HTML file that needs nothing beside it and asks no network."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from schemas.errors import UsageError

INSTALL_HINT = "pip install 'qdit4sr[report]'"
SCRIPTS = ("rows.js", "plots.js", "page.js")
"""In the order in which each needs those before it."""


def check_report_extra() -> None:
    """Make sure that the extra ``report`` is there.

    Raises:
        UsageError: it is not.
    """
    try:
        import altair  # noqa: F401, PLC0415  (an extra)
        import vl_convert  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            f"a report needs the package {error.name}, which is not installed", hint=INSTALL_HINT
        ) from None


def report_page(packs: Sequence[Mapping[str, Any]], changed: Mapping[str, Any] | None) -> str:
    """The page of one pack or two.

    Args:
        packs: `pack_facts` of each.
        changed: settings that differ, each with ``before`` and ``after``; None for one pack.
    """
    import vl_convert  # noqa: PLC0415

    from planner.report.charts import chart_specs  # noqa: PLC0415

    data = {"packs": packs, "changed": changed, "charts": chart_specs()}
    parts = {
        "TITLE": _as_text(" and ".join(str(pack["label"]) for pack in packs)),
        "STYLE": _part("page.css"),
        "DATA": _as_data(data),
        "VEGA": vl_convert.javascript_bundle(),  # type: ignore[call-arg]  # its stub has no default
        "SCRIPT": "\n".join(map(_part, SCRIPTS)),
    }
    page = _part("page.html")
    for name, text in parts.items():
        head, _, tail = page.partition(f"<!--{name}-->")
        page = head + text + tail
    return page


def _part(name: str) -> str:
    return files("planner.report").joinpath("web", name).read_text(encoding="utf-8")


def _as_data(value: Any) -> str:
    """JSON that can stand inside a script element: a pack's names may hold anything."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c")


def _as_text(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(c if c.isprintable() else "�" for c in escaped)
