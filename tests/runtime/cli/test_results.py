"""What ``qrun upscale`` writes: sizes, formats, names, folders, pages; several images at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import pyvips

from runtime.images import image_io
from tests.runtime.cli.test_cli import make_image, size_of


@pytest.fixture
def run(qrun):
    return lambda *arguments: qrun("upscale", *arguments, "--pack", "m")


def ok(result):
    assert result.exit_code == 0, result.stderr
    return result


@pytest.mark.parametrize(("scale", "size"), [(1, (6, 8)), (2, (12, 16)), (4, (24, 32))])
def test_scales(tmp_path, run, scale, size):
    source = make_image(tmp_path / "a.png")
    ok(run(source, "--scale", scale))
    assert size_of(tmp_path / f"a_x{scale}.png") == size


def test_a_smaller_scale_is_the_full_result_resized(tmp_path, run):
    source = make_image(tmp_path / "a.png", size=(16, 16))
    ok(run(source))
    ok(run(source, "--scale", 2))
    full = pyvips.Image.new_from_file(str(tmp_path / "a_x4.png")).numpy().astype(float)
    half = pyvips.Image.new_from_file(str(tmp_path / "a_x2.png")).numpy().astype(float)
    means = full.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    # A bicubic kernel is not the mean of four pixels, but near it.
    assert np.abs(means - half).mean() < 8


def test_a_scale_is_a_setting_of_the_result(tmp_path, run):
    source = make_image(tmp_path / "a.png")
    ok(run(source, "-o", tmp_path / "b.png"))
    result = run(source, "-o", tmp_path / "b.png", "--scale", 2)
    assert result.exit_code == 2
    assert "scale unset (now 2)" in result.stderr


@pytest.mark.parametrize(
    ("name", "suffix", "loader"),
    [
        ("png", ".png", "pngload"),
        ("jpg", ".jpg", "jpegload"),
        ("webp", ".webp", "webpload"),
        ("tiff", ".tif", "tiffload"),
        ("avif", ".avif", "heifload"),
    ],
)
def test_formats(tmp_path, run, loads, name, suffix, loader):
    source = make_image(tmp_path / "a.png")
    ok(run(source, "--format", name))
    image = pyvips.Image.new_from_file(str(tmp_path / f"a_x4{suffix}"))
    assert image.get("vips-loader") == loader
    assert (image.height, image.width) == (24, 32)
    ok(run(source, "--format", name))
    assert len(loads) == 1  # the result says how it was made


def test_names(tmp_path, run):
    make_image(tmp_path / "in" / "a.png")
    make_image(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    ok(run(tmp_path / "in", "-o", out, "--suffix", "", "--format", "jpg", "--quality", 40))
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.jpg"]
    ok(run(tmp_path / "in", "-o", out, "--suffix", "-big"))
    assert sorted(path.name for path in out.glob("*-big*")) == ["a-big.png", "b-big.png"]


def test_recursive_keeps_the_folders(tmp_path, run):
    for name in ("a.png", "one/a.png", "one/two/b.png", ".hidden/c.png"):
        make_image(tmp_path / "in" / name)
    out = tmp_path / "in" / "out"
    for _ in range(2):  # what the first run made there is no input of the second
        ok(run(tmp_path / "in", "-r", "-o", out))
        found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
        assert found == ["a_x4.png", "one/a_x4.png", "one/two/b_x4.png"]
    beside = ok(run(tmp_path / "in" / "one", "-r", "--json"))
    outputs = [entry["output"] for entry in json.loads(beside.stdout)["files"]]
    assert outputs == [f"{tmp_path}/in/one/a_x4.png", f"{tmp_path}/in/one/two/b_x4.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scale", 3), "1, 2 or 4"),
        (("--format", "gif"), "png, jpg"),
        (("--quality", 0), "1 to 100"),
        (("--quality", 50), "lose nothing"),
        (("--suffix", "a/b"), "without a folder"),
        (("-o", "b.jpg", "--format", "png"), "names a .jpg file"),
        (("--suffix", ""), "would be replaced"),
        (("--compare", "page.txt"), "ends in .html"),
        (("--compare", "no/such/page.html"), "in none"),
    ],
)
def test_refused_before_a_model_is_loaded(tmp_path, run, loads, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    make_image(tmp_path / "a.png")
    result = run("a.png", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not loads
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_page_that_cannot_be_written_is_refused_before_too(tmp_path, run, loads):
    result = run(make_image(tmp_path / "a.png"), "--compare", "/proc/page.html")
    assert result.exit_code == 2
    assert "/proc/page.html: cannot be written (" in result.stderr
    assert not loads


def test_a_device_is_no_place_for_results(tmp_path, run):
    result = run(make_image(tmp_path / "a.png"), "-o", "/dev/null")
    assert result.exit_code == 2
    assert "/dev/null is neither a folder nor a regular file" in result.stderr


def test_a_line_about_a_file_is_one_line(tmp_path, run):
    source = make_image(tmp_path / "a\nerror: b\r.png")
    result = ok(run(source))
    assert "a\\nerror: b\\r_x4.png" in result.stderr


# Several images at once


def test_jobs_give_the_same_pictures(tmp_path, run):
    for index in range(5):
        make_image(tmp_path / "in" / f"{index}.png", seed=index)
    (tmp_path / "in" / "2.png").write_bytes(b"no image")
    found = {}
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        result = run(tmp_path / "in", "-o", out, "--jobs", workers, "--json")
        assert result.exit_code == 6
        entries = json.loads(result.stdout)["files"]
        assert [entry["status"] for entry in entries] == ["done", "done", "failed", "done", "done"]
        found[workers] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert found[1] == found[3]
    assert len(found[1]) == 4


def test_a_batch_says_how_fast_it_was(tmp_path, run):
    for index in range(2):
        make_image(tmp_path / f"{index}.png", seed=index)
    said = ok(run(tmp_path)).stderr
    assert "2 of 2 images done in" in said
    assert "MP/s" in said
    assert "MP/s" not in run(tmp_path).stderr  # nothing was done


def test_headers_are_read_up_to_the_first_good_image(tmp_path, qrun, monkeypatch):
    read = []
    real = image_io.read_header

    def noted(path, **options):
        read.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(image_io, "read_header", noted)
    for index in range(20):
        make_image(tmp_path / f"{index:02}.png", seed=index)
    (tmp_path / "00.png").write_bytes(b"no image")
    seen_at_load = []
    load = qrun.load

    def loading(**options):
        seen_at_load.extend(read)
        return load(**options)

    qrun.load = loading
    assert qrun("upscale", tmp_path, "--pack", "m").exit_code == 6
    assert seen_at_load == ["00.png", "01.png"]


# Before and after


@pytest.fixture
def batch(tmp_path):
    """Images of several kinds, one of them broken, with a name that is no HTML."""
    for name in ("a.png", "b & <b>.jpg", "c.tif", "d.avif"):
        make_image(tmp_path / "in" / name, size=(20, 30))
    (tmp_path / "in" / "e.png").write_bytes(b"no image")
    return tmp_path / "in"


def compared(tmp_path, run, batch, *options):
    page = tmp_path / "page.html"
    result = run(batch, "-o", tmp_path / "out", "--compare", page, "--format", "webp", *options)
    assert result.exit_code == 6, result.stderr
    return page


def test_the_page_holds_its_pictures(tmp_path, run, batch):
    text = compared(tmp_path, run, batch).read_text()
    assert text.count("<figure>") == 4
    assert text.count('src="data:image/') == 8
    assert "b &amp; &lt;b&gt;.jpg" in text
    assert "<b>.jpg" not in text
    assert "Not done: 1" in text
    assert "http" not in text.replace("http-equiv", "")
    again = compared(tmp_path, run, batch)  # results that were there already are shown too
    assert again.read_text().count("<figure>") == 4


def test_large_pictures_stay_files(tmp_path, run, batch, monkeypatch):
    monkeypatch.setattr("runtime.compare.page.MOST_INSIDE_BYTES", 100)
    text = compared(tmp_path, run, batch).read_text()
    assert 'src="out/a_x4.webp"' in text
    assert 'src="in/b%20%26%20%3Cb%3E.jpg"' in text
    assert text.count('src="data:image/jpeg') == 1  # no browser shows TIFF


def test_a_page_replaces_no_other_file(tmp_path, run):
    source = make_image(tmp_path / "a.png")
    page = tmp_path / "page.html"
    page.write_text("<p>mine")
    result = run(source, "--compare", page)
    assert result.exit_code == 2
    assert page.read_text() == "<p>mine"
    ok(run(source, "--compare", page, "--force"))
    assert json.loads(ok(run(source, "--compare", page, "--json")).stdout)["compare"] == str(page)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("inside", [True, False])
def test_the_slider_in_a_browser(tmp_path, run, batch, visit, monkeypatch, width, inside):
    if not inside:
        monkeypatch.setattr("runtime.compare.page.MOST_INSIDE_BYTES", 100)
    seen = visit(compared(tmp_path, run, batch), width=width)
    page = seen.page
    sizes = page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert sizes == [120, 30] * 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    view = page.locator(".view").first
    box = view.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    at = float(view.evaluate("v => v.style.getPropertyValue('--at')").removesuffix("%"))
    assert at == pytest.approx(25, abs=3)
    page.locator("button").first.click()
    assert view.evaluate("v => v.getBoundingClientRect().width") == 120
    assert seen.trouble == []


@pytest.mark.slow
def test_a_hundred_files_ten_of_them_broken(tmp_path, run):
    """Also interrupted, as it were: some results go missing, and the same command makes them."""
    folder, suffixes = tmp_path / "in", (".png", ".jpg", ".webp", ".tif", ".avif")
    sizes = {}
    for index in range(100):
        source = folder / f"{index:03}{suffixes[index % 5]}"
        size = (5 + index % 3, 6 + index % 4)
        make_image(source, seed=index, size=size)
        if index % 10 == 7:
            source.write_bytes(source.read_bytes()[:30])
        else:
            sizes[source.name] = size
    command = (folder, "-o", tmp_path / "out", "--jobs", 2, "--json", "--steps", 1)
    first = run(*command)
    assert first.exit_code == 6
    entries = json.loads(first.stdout)["files"]
    done = {entry["input"]: entry for entry in entries if entry["status"] == "done"}
    failed = [entry for entry in entries if entry["status"] == "failed"]
    assert (len(done), len(failed)) == (90, 10)
    assert all(Path(entry["input"]).name in entry["error"] for entry in failed)
    for name, (height, width) in sizes.items():
        output = Path(done[str(folder / name)]["output"])
        assert size_of(output) == (4 * height, 4 * width)
    results = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in list(results)[::3]:
        path.unlink()
    again = run(*command)
    assert again.exit_code == 6
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == results
