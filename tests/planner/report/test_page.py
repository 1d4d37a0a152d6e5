"""``qplan report``: the page's content, and the page in a browser."""

import json
import re
import sys

import pytest

from artifacts.dit4sr.layout import block_linears
from schemas.calibration import Calibration, CalibrationImage
from schemas.json_io import dump_json
from schemas.manifest import CalibrationRecord, RecipeRecord, Source, SourceFile
from tests.artifacts.make_pack import TINY, make_pack
from tests.planner.run_qplan import assert_fails, run_qplan

HOSTILE = "</script><img src=x onerror=alert(1)>"
LAYERS = len(block_linears(TINY))


@pytest.fixture
def packs(tmp_path):
    made = [tmp_path / "first.qpack", tmp_path / "second.qpack"]
    for seed, path in enumerate(made):
        recipe = RecipeRecord(name=HOSTILE, settings={"global_rank": 2, "seed": seed})
        make_pack(
            path, seed=seed, modulation=("weights", "table")[seed], changes={"recipe": recipe}
        )
    return made


@pytest.fixture
def calibration(tmp_path):
    """A calibration of the packs' source, with inputs of all layers."""
    sampling = CalibrationRecord(images=1, crop_px=4, seed=0, steps=2, guidance=1, shift=3)
    content = Calibration(
        source=Source(files=(SourceFile(name="a.safetensors", sha256="0" * 64, bytes=8),)),
        variant="q",
        network="quantized",
        recipe=RecipeRecord(name="q-dit4sr", settings={}),
        sampling=sampling,
        images=(CalibrationImage(name="a", sha256="1" * 64, left=0, top=0, width=4, height=4),),
        timesteps=(800.0, 200.0),
        mean_squares={
            name: (0.1 * (index + 1), 0.0) for index, name in enumerate(block_linears(TINY))
        },
    )
    path = tmp_path / "calibration.json"
    path.write_bytes(dump_json(content))
    return path


def report(tmp_path, *arguments):
    """Make a page; its path and the data in it."""
    out = tmp_path / "report.html"
    result = run_qplan("report", *arguments, "-o", out, "--force")
    assert result.exit_code == 0, result.output
    page = out.read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return out, json.loads(data[1])


def test_the_page_stands_alone_and_holds_the_pack(tmp_path, packs):
    out, data = report(tmp_path, packs[0])
    page = out.read_text()
    assert out.stat().st_size < 3_000_000
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=["']?http""", page)
    assert "<img" not in page[: page.index('id="data"')]
    assert page.count("</script>") == 3  # nothing inside a script ends it
    assert data["changed"] is None
    (pack,) = data["packs"]
    assert pack["label"] == "first.qpack"
    assert pack["summary"]["recipe"] == HOSTILE
    assert all(len(layer["variances"]) == 5 for layer in pack["layers"])
    assert set(data["charts"]) == {
        *("blocks", "layers", "profile", "histogram", "variances", "inputs", "errors", "bytes"),
    }


def test_two_packs_and_a_calibration(tmp_path, packs, calibration):
    _, data = report(tmp_path, *packs, "--calibration", calibration, "--no-weights")
    first, second = data["packs"]
    assert data["changed"]["settings.seed"] == {"before": 0, "after": 1}
    assert len(second["layers"]) < len(first["layers"])
    assert first["input_timesteps"] == [800.0, 200.0]
    assert first["layers"][0]["variances"] is None
    assert len(first["layers"][0]["inputs"]) == 2


def test_refusals(tmp_path, packs, calibration):
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert_fails(run_qplan("report", packs[0], "-o", page), 2, "exists", "--force")
    assert page.read_text() == "mine"
    assert_fails(run_qplan("report", packs[0], "-o", tmp_path), 2, "folder")
    assert_fails(run_qplan("report", packs[0], "-o", tmp_path / "p.png"), 2, "ends in .html")
    assert_fails(run_qplan("report", tmp_path / "no", "-o", tmp_path / "p.html"), 3, "no such")
    other = json.loads(calibration.read_text())
    other["variant"] = "f"
    calibration.write_text(json.dumps(other))
    arguments = ("report", packs[0], "-o", tmp_path / "p.html", "--calibration", calibration)
    assert_fails(run_qplan(*arguments), 2, "another checkpoint")


def test_without_the_extra(tmp_path, packs, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    result = run_qplan("report", packs[0], "-o", tmp_path / "p.html")
    assert_fails(result, 2, "altair", "qdit4sr[report]")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser(tmp_path, packs, calibration, visit, width, scheme):
    out, data = report(tmp_path, *packs, "--calibration", calibration)
    seen = visit(out, width=width, scheme=scheme)
    page = seen.page
    page.wait_for_selector("body[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "[...document.querySelectorAll('.plot')].filter((p) => p.querySelector('svg, canvas'))"
    assert page.evaluate(f"{drawn}.length") == 6 * 2 + 2  # but for the errors' and the histogram
    fonts = "(names) => [...new Set(names.map((e) => getComputedStyle(e).fontFamily))]"
    (font,) = page.eval_on_selector_all("body, .plot svg text", fonts)
    assert "system-ui" in font
    sizes = [len(pack["layers"]) for pack in data["packs"]]
    assert page.inner_text("#shown") == " and ".join(f"{n} of {n}" for n in sizes) + " layers"
    assert page.locator("#rows tbody tr").count() == sum(sizes)

    page.fill("#pattern", r"blocks\.1\.attn\.to_[qk]$")
    page.wait_for_function("document.querySelectorAll('#rows tbody tr').length === 4")
    page.wait_for_selector("body[data-ready=true]")
    assert page.inner_text("#shown").startswith("2 of ")
    named = page.locator("[data-chart=profile] .plot").first.inner_text()
    assert "attn.to_q" in named
    assert "ff.net" not in named

    page.fill("#pattern", "attn.to_q(")  # no regular expression: plain text
    page.wait_for_function("document.querySelectorAll('#rows tbody tr').length === 0")
    page.wait_for_selector("body[data-ready=true]")
    assert page.locator(".plot.empty").count() == 6 * 2 + 2
    assert seen.trouble == []


@pytest.mark.browser
def test_rows_are_sorted_by_a_click(tmp_path, packs, visit):
    out, _ = report(tmp_path, packs[0])
    page = visit(out).page
    page.wait_for_selector("body[data-ready=true]")
    for wanted in (sorted, lambda values: sorted(values, reverse=True)):
        page.click("#rows th:nth-child(3)")
        shown = [int(t) for t in page.locator("#rows td:nth-child(3)").all_inner_texts()]
        assert shown == wanted(shown)
    assert page.is_visible("section[data-needs=variances]")
    assert not page.is_visible("section[data-needs=inputs]")
