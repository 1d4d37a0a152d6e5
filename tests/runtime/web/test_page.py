"""The page: its command's errors, and in a real browser from upload to download."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import pyvips

from runtime.cli.web import shown_names
from runtime.web.page import check_port
from schemas.errors import UsageError
from tests.artifacts.make_pack import make_pack

ROOT = Path(__file__).parents[3]


def test_the_command_refuses_what_it_cannot_serve(qrun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = qrun("web")
    assert found.exit_code == 2
    assert "--pack" in found.stderr
    found = qrun("web", "--pack", "m.qpack", "--device", "tpu")
    assert found.exit_code == 2
    monkeypatch.setitem(sys.modules, "gradio", None)
    found = qrun("web", "--pack", "m.qpack")
    assert found.exit_code == 2
    assert "qdit4sr[web]" in found.stderr


def test_a_port_in_use_is_told_before_an_address_is():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}: address already in use"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(UsageError, match=r"nowhere\.invalid:80: "):
        check_port("nowhere.invalid", 80)


def test_visitors_see_no_paths_of_this_machine_where_names_suffice(tmp_path):
    folders = [tmp_path / name for name in ("one/a.qpack", "two/a.qpack", "one/b.qpack")]
    for folder in folders:
        folder.mkdir(parents=True)
    names = shown_names([*folders, Path("org/name@v1")])
    assert names == [str(folders[0]), str(folders[1]), "b.qpack", "org/name@v1"]


@pytest.fixture
def served(tmp_path):
    """The address of `qrun web`, in a process of its own."""
    pytest.importorskip("gradio", reason="needs the extra `web`")
    make_pack(tmp_path / "m.qpack")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["web", "--pack", "m.qpack", "--port", str(port), "--max-upload", "1", "-o", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli.main", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _wait_for(address, process):
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"{address} never answered")


PROGRESS = "document.querySelector('#progress textarea').value"


def upload(page, path):
    """Choose a file, wait until the page holds it, press the button."""
    if page.get_by_label("Remove Image").count():
        page.get_by_label("Remove Image").click()
    page.set_input_files("input[type=file]", str(path))
    page.wait_for_selector(f".image-frame img[src$='{path.name}']", state="attached")
    page.get_by_role("button", name="Enlarge", exact=True).click()


@pytest.mark.browser
def test_from_upload_to_download(served, tmp_path, browser):
    page = browser.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    pyvips.Image.black(8, 6, bands=3).write_to_file(str(tmp_path / "small.png"))
    page.goto(served)
    assert page.locator("#download").is_disabled()
    upload(page, tmp_path / "small.png")
    page.wait_for_function(f"{PROGRESS}.startsWith('done')", timeout=60_000)
    with page.expect_download() as download:
        page.click("#download")
    target = tmp_path / "result.png"
    download.value.save_as(target)
    image = pyvips.Image.new_from_file(str(target))
    assert (image.width, image.height) == (32, 24)
    assert [p.name.startswith("small-") for p in (tmp_path / "out").glob("*.png")] == [True]
    assert not [url for url in requests if not url.startswith((served, "blob:", "data:"))]

    # As it came: 16 bits and alpha, and no browser shows it.
    deep = pyvips.Image.black(8, 6, bands=2).cast("ushort").copy(interpretation="grey16")
    deep.write_to_file(str(tmp_path / "deep.tif"))
    upload(page, tmp_path / "deep.tif")
    page.wait_for_function(f"{PROGRESS}.startsWith('done: deep-')", timeout=60_000)
    (result,) = (tmp_path / "out").glob("deep-*.png")
    image = pyvips.Image.new_from_file(str(result))
    assert (image.width, image.bands, image.format) == (32, 2, "ushort")
    page.wait_for_function(
        "[...document.querySelectorAll('img')].some((i) => i.src.endsWith('-shown.jpg')"
        " && i.naturalWidth === 8)"
    )

    (tmp_path / "fake.jpg").write_text("no picture")
    upload(page, tmp_path / "fake.jpg")
    page.wait_for_selector("text=not a readable image")
