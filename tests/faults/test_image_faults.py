"""Bad images and interrupted batches: rows 29 to 35 of the fault table, through ``qrun``."""

import os
import signal
import subprocess
import sys
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from runtime import upscale
from runtime.pipeline import Pipeline
from tests.hundred_files import bomb


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Shells let what they start in the background ignore Ctrl-C; these tests send it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def encoded(suffix, size=(6, 8)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    return image.write_to_buffer(suffix)


def make_image(path, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(path.suffix, size))
    return path


@pytest.fixture
def run(qrun):
    return lambda *arguments: qrun("upscale", *arguments, "--pack", "m.qpack")


def shape_of(path):
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "")
    return image.height, image.width


BAD_IMAGES = {
    "empty": b"",
    "text": b"<html>404</html>",
    "zeros": bytes(1000),
    **{
        f"truncated{suffix} at {part}": encoded(suffix, (64, 64))[: -1 - int(part * 3000)]
        for suffix in (".png", ".jpg", ".webp", ".tif", ".gif")
        for part in (0.1, 0.5)
    },
}


# Row 29


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_alone_ends_with_4_and_leaves_nothing(tmp_path, run, kind):
    (tmp_path / "bad.png").write_bytes(BAD_IMAGES[kind])
    result = run(tmp_path / "bad.png")
    assert result.exit_code == 4, result.stderr
    assert "bad.png" in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_batch_goes_on_after_bad_images_and_ends_with_6(tmp_path, run, loads):
    make_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(encoded(".png", (64, 64))[:-3000])  # its header is good
    make_image(tmp_path / "d.jpg")
    result = run(tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 6
    assert "2 of 4 images failed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_x4.png", "d_x4.png"]
    assert len(loads) == 1


def test_batch_of_nothing_but_bad_headers_loads_no_model(tmp_path, run, loads):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    assert run(tmp_path).exit_code == 6
    assert loads == []


# Row 30


def test_bomb_is_refused_from_its_header(tmp_path, run, loads):
    (tmp_path / "bomb.png").write_bytes(bomb(30_000))
    result = run(tmp_path / "bomb.png")
    assert result.exit_code == 4
    assert "30000 x 30000 px" in result.stderr
    assert "--max-pixels 900000000" in result.stderr
    assert loads == []


def test_bomb_takes_little_memory(tmp_path):
    """In a process of its own, whose peak memory is its own; decoded it would be 2.7 GB."""
    (tmp_path / "bomb.png").write_bytes(bomb(30_000))
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from runtime.images.image_io import read_image\n"
        "from schemas.errors import ImageError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "try: read_image(Path(sys.argv[1]))\n"
        "except ImageError: print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bomb.png"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 50  # MB


def test_bomb_that_is_allowed_is_found_out_while_decoding(tmp_path, run):
    (tmp_path / "bomb.png").write_bytes(bomb(500))
    result = run(tmp_path / "bomb.png", "--max-pixels", 250_000)
    assert result.exit_code == 4
    assert "truncated or damaged" in result.stderr


# Row 31


@pytest.mark.parametrize("size", [(1, 1), (1, 23), (23, 1), (5, 4)])
def test_tiny_images_and_large_tiles_give_exactly_four_times(tmp_path, run, size):
    source = make_image(tmp_path / "a.png", size)
    result = run(source, "--tile", 64)
    assert result.exit_code == 0, result.stderr
    assert shape_of(tmp_path / "a_x4.png") == (4 * size[0], 4 * size[1])


# Row 32: every kind by itself is in tests/runtime/images/test_image_io.py; here they go further.


def test_kinds_of_images_are_kept_or_the_conversion_is_said(tmp_path, run):
    rng = np.random.default_rng(0)
    eight = rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    rgb = pyvips.Image.new_from_array(eight[..., :3].copy()).copy(interpretation="srgb")
    folder = tmp_path / "in"
    folder.mkdir()
    pyvips.Image.new_from_array(eight[..., 0].copy()).copy(interpretation="b-w").pngsave(
        str(folder / "gray.png")
    )
    pyvips.Image.new_from_array(eight).copy(interpretation="srgb").pngsave(str(folder / "rgba.png"))
    rgb.icc_transform("cmyk", input_profile="srgb").jpegsave(str(folder / "cmyk.jpg"))
    rgb.pngsave(str(folder / "palette.png"), palette=True)
    pyvips.Image.new_from_array(rng.integers(0, 65536, (6, 8, 3), dtype=np.uint16)).copy(
        interpretation="rgb16"
    ).pngsave(str(folder / "deep.png"))
    rgb.icc_transform("p3", input_profile="srgb").pngsave(str(folder / "wide.png"), profile="p3")
    turned = rgb.copy()
    turned.set_type(pyvips.GValue.gint_type, "orientation", 6)
    turned.jpegsave(str(folder / "turned.jpg"))

    result = run(folder, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr

    def written(name):
        return pyvips.Image.new_from_buffer((tmp_path / "out" / f"{name}_x4.png").read_bytes(), "")

    assert written("gray").bands == 1
    assert (written("rgba").bands, written("rgba").hasalpha()) == (4, 1)
    assert written("deep").format == "ushort"
    assert (written("turned").width, written("turned").height) == (24, 32)
    assert (written("cmyk").bands, written("palette").bands) == (3, 3)
    assert written("wide").get_typeof("icc-profile-data") != 0
    assert "cmyk.jpg: converted from CMYK to sRGB" in result.stderr
    assert "palette.png: palette expanded" in result.stderr
    assert "wide.png: converted to sRGB" in result.stderr


YELLOW = (240, 200, 60)


def yellow_disc(kind):
    """A yellow disc, its surroundings invisible and of another colour, as vips has it."""
    y, x = np.mgrid[:64, :64]
    inside = ((y - 32) ** 2 + (x - 32) ** 2 < 576)[..., None]
    hidden = (0, 0, 0) if kind == "black" else (0, 255, 0)
    rgb = np.where(inside, YELLOW, hidden).astype(np.uint8)
    rgba = np.concatenate([rgb, 255 * inside.astype(np.uint8)], axis=2)
    if kind == "gray":
        pixels = pyvips.Image.new_from_array(rgba[..., [0, 3]].copy())
        return pixels.copy(interpretation="b-w")
    if kind == "deep":
        pixels = pyvips.Image.new_from_array(rgba.astype(np.uint16) * 257)
        return pixels.copy(interpretation="rgb16")
    return pyvips.Image.new_from_array(rgba).copy(interpretation="srgb")


def save_disc(path, kind):
    if kind in {"keyed", "palette"}:  # libvips writes neither a transparent colour nor this palette
        rgba = yellow_disc("green").numpy()
        image = Image.fromarray(rgba[..., :3].copy())
        if kind == "palette":
            image = image.quantize(2)
            image.save(path, transparency=image.getpixel((0, 0)))
        else:
            image.save(path, transparency=(0, 255, 0))
    else:
        yellow_disc(kind).pngsave(str(path))


@pytest.mark.parametrize("kind", ["green", "black", "deep", "gray", "palette", "keyed"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("color_fix", ["adain", "wavelet"])
def test_colours_of_invisible_pixels_do_not_show(
    tmp_path, qrun, run, tiny, monkeypatch, kind, suffix, color_fix
):
    """With the latent of the input itself for a result, what is wrong is not the network's."""

    def same_latent(_network, control, *_rest, **_options):
        return control

    def round_trip(_pipeline, latent):
        return torch.nn.functional.interpolate(latent[:, :3], scale_factor=4, mode="nearest")

    def shrink(_pipeline, image):
        return torch.nn.functional.avg_pool2d(image, 4)

    monkeypatch.setattr(Pipeline, "sample", property(lambda _: same_latent))
    monkeypatch.setattr(upscale, "encode", shrink)
    monkeypatch.setattr(upscale, "decode", round_trip)
    save_disc(tmp_path / "a.png", kind)
    result = run(tmp_path / "a.png", "-o", tmp_path / f"b{suffix}", "--color-fix", color_fix)
    assert result.exit_code == 0, result.stderr
    image = pyvips.Image.new_from_file(str(tmp_path / f"b{suffix}"))
    pixels = image.numpy().astype(float) / (257 if image.format == "ushort" else 1)
    pixels = pixels.reshape(256, 256, -1)
    y, x = np.mgrid[:256, :256]
    distance = np.hypot(y - 127.5, x - 127.5)
    expected = (240,) if kind == "gray" else YELLOW
    if suffix == ".png":
        visible = pixels[..., -1] > 0  # the rim as well
        assert visible.mean() > 0.4
        assert np.abs(pixels[visible][:, : len(expected)] - expected).max() <= 2
    else:  # flattened on white: between yellow and white, but for what JPEG does at edges
        assert np.abs(pixels[distance < 76] - expected).max() <= 4
        assert (pixels >= np.array(expected) - 20).all()
        assert (pixels[distance > 110] >= 250).all()


# Row 33


class Hungry(torch.nn.Module):
    """A network that has no memory for tiles above a size."""

    def __init__(self, network, largest):
        super().__init__()
        self.network = network
        self.config = network.config
        self.largest = largest
        self.seen = []

    def forward(self, noisy, *rest):
        self.seen.append(max(noisy.shape[-2:]))
        if self.seen[-1] > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.network(noisy, *rest)


def with_network(qrun, tiny, network):
    qrun.load = lambda **_: replace(tiny, network=network)


def test_out_of_memory_is_answered_with_smaller_tiles(tmp_path, qrun, run, tiny):
    network = Hungry(tiny.network, largest=20)
    with_network(qrun, tiny, network)
    source = make_image(tmp_path / "a.png", (40, 40))  # a latent of 40 x 40
    result = run(source, "--tile", 64)
    assert result.exit_code == 0, result.stderr
    assert "out of memory with tiles of 40; trying 20" in result.stderr
    assert shape_of(tmp_path / "a_x4.png") == (160, 160)
    assert network.seen[0] == 40
    assert set(network.seen[1:]) == {20}


def test_out_of_memory_at_the_floor_is_5_and_leaves_nothing(tmp_path, qrun, run, tiny):
    with_network(qrun, tiny, Hungry(tiny.network, largest=0))
    source = make_image(tmp_path / "a.png", (40, 40))
    result = run(source)
    assert result.exit_code == 5
    assert f"even with tiles of {upscale.TILE_FLOOR}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# Row 34


def test_interrupted_batch_keeps_what_is_finished_and_continues(tmp_path, qrun, run, tiny):
    for name in ("a.png", "b.png", "c.png"):
        make_image(tmp_path / name, (6, 6))  # one tile: the network is called once a step
    out = tmp_path / "out"

    class Interrupted(torch.nn.Module):
        """Presses Ctrl-C, with a real signal, in the middle of the second image."""

        config = tiny.network.config
        calls = 0

        def forward(self, *inputs):
            type(self).calls += 1
            if self.calls == 2 * tiny.sampling.steps:
                signal.raise_signal(signal.SIGINT)
            return tiny.network(*inputs)

    with_network(qrun, tiny, Interrupted())
    result = run(tmp_path, "-o", out)
    assert result.exit_code == 130
    assert "1 of 3 finished" in result.stderr
    assert [path.name for path in out.iterdir()] == ["a_x4.png"]
    first = (out / "a_x4.png").read_bytes()
    stamp = (out / "a_x4.png").stat().st_mtime_ns

    with_network(qrun, tiny, tiny.network)
    assert run(tmp_path, "-o", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["a_x4.png", "b_x4.png", "c_x4.png"]
    assert (out / "a_x4.png").stat().st_mtime_ns == stamp
    # Continued or uninterrupted, the images are the same.
    assert run(tmp_path, "-o", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again" / "a_x4.png").read_bytes() == first
    for name in ("b_x4.png", "c_x4.png"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_interruption_while_writing_leaves_no_partial_file(tmp_path, run, monkeypatch):
    def half(_image, path, *_):
        path.write_bytes(b"half a file")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("runtime.images.image_io._save", half)
    result = run(make_image(tmp_path / "a.png"))
    assert result.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# Row 35: all of it before a model is loaded.


def test_inputs_with_one_name_get_results_of_their_own(tmp_path, run):
    first = make_image(tmp_path / "one" / "a.png")
    second = make_image(tmp_path / "two" / "a.jpg")
    result = run(first, second, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a_jpg_x4.png", "a_png_x4.png"]


def test_names_that_differ_in_unicode_form_alone_get_results_of_their_own(tmp_path, run):
    composed = make_image(tmp_path / "one" / unicodedata.normalize("NFC", "é.png"))
    decomposed = make_image(tmp_path / "two" / unicodedata.normalize("NFD", "é.png"))
    assert run(composed, decomposed, "-o", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_links_to_one_file_are_upscaled_each(tmp_path, run):
    blob = make_image(tmp_path / "blobs" / "b.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).symlink_to(blob)
    assert run(folder, "-o", tmp_path / "out").exit_code == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a_x4.png", "b_x4.png", "c_x4.png"]


def test_hidden_files_are_no_inputs_and_others_are_said(tmp_path, run):
    make_image(tmp_path / "a.jpg").rename(tmp_path / "a.jfif")
    (tmp_path / "._a.jfif").write_bytes(b"macOS")
    (tmp_path / "b.xyz").touch()
    result = run(tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "1 file skipped (.xyz)" in result.stderr
    assert (tmp_path / "a_x4.png").exists()


@pytest.mark.parametrize("out", ["big.bmp", "x.gif", "x.gifx", "-", "nodir/x.png"])
def test_output_that_cannot_be_written_is_refused_before_any_work(
    tmp_path, run, loads, monkeypatch, out
):
    monkeypatch.chdir(tmp_path)
    result = run(make_image(tmp_path / "a.png"), "-o", out)
    assert result.exit_code == 2, result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert loads == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_one_output_file_for_many_inputs(tmp_path, run, loads):
    sources = [make_image(tmp_path / name) for name in ("a.png", "b.png")]
    assert run(*sources, "-o", tmp_path / "c.png").exit_code == 2
    assert loads == []


def test_result_on_top_of_an_input(tmp_path, run, loads):
    source = make_image(tmp_path / "a.png")
    before = source.read_bytes()
    result = run(source, "-o", source, "--force")
    assert result.exit_code == 2
    assert source.read_bytes() == before
    assert loads == []


@pytest.mark.parametrize("out", ["file/inside", "file"])
def test_output_folder_that_cannot_be(tmp_path, run, loads, out):
    (tmp_path / "file").write_bytes(b"a file where a folder would have to be")
    result = run(make_image(tmp_path / "a.png"), "-o", tmp_path / out)
    assert result.exit_code == 2, result.stderr
    assert "cannot be written" in result.stderr
    assert loads == []


@pytest.mark.skipif(not os.access("/proc/self", os.F_OK), reason="no /proc to fail to write to")
def test_unwritable_output_folder(tmp_path, run, loads):
    """/proc refuses even root, whom no permission bit stops."""
    result = run(make_image(tmp_path / "a.png"), "-o", "/proc/self")
    assert result.exit_code == 2
    assert loads == []


def test_missing_input_and_folder_without_images(tmp_path, run, loads):
    (tmp_path / "empty").mkdir()
    for given in ("missing.png", "empty"):
        result = run(tmp_path / given)
        assert result.exit_code == 2
        assert given in result.stderr
    assert loads == []


def test_unicode_name_works(tmp_path, run):
    assert run(make_image(tmp_path / "фото 写真.png")).exit_code == 0
    assert shape_of(tmp_path / "фото 写真_x4.png") == (24, 32)


def test_name_that_is_no_text_fails_before_any_work_and_alone(tmp_path, run, loads):
    bad = tmp_path / os.fsdecode(b"\xff.png")
    bad.write_bytes(encoded(".png"))
    result = run(bad)
    assert result.exit_code == 2
    assert "not valid Unicode" in result.stderr
    assert loads == []
    make_image(tmp_path / "a.png")
    result = run(tmp_path)
    assert result.exit_code == 6
    assert "not valid Unicode" in result.stderr
    assert (tmp_path / "a_x4.png").exists()


def test_result_name_that_is_too_long_fails_before_any_work_and_alone(tmp_path, run, loads):
    source = make_image(tmp_path / ("a" * 250 + ".png"))
    result = run(source)
    assert result.exit_code == 2
    assert "longer than the file system allows" in result.stderr
    assert loads == []
    make_image(tmp_path / "b.png")
    assert run(tmp_path).exit_code == 6
    assert (tmp_path / "b_x4.png").exists()
    assert run(source, "-o", tmp_path / "c.png").exit_code == 0


def test_what_a_killed_batch_left_is_swept_by_the_next_even_with_nothing_to_do(tmp_path, run):
    source = make_image(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / ".qrun-12-0.part"
    left.write_bytes(b"half a picture")
    assert run(source, "-o", tmp_path / "out").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_x4.png"]
    left.write_bytes(b"half a picture")
    assert run(source, "-o", tmp_path / "out").exit_code == 0
    assert not left.exists()
