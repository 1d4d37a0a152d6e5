"""Images of every kind go in as sRGB tensors and come out like they were."""

import struct
import zlib

import numpy as np
import pytest
import pyvips
import torch

from runtime.images.image_io import check_output_size, read_header, read_image, write_image
from schemas.errors import ImageError, ResourceError


@pytest.fixture(scope="module")
def photo():
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:60:2, 100:180:2])  # [30, 40, 3] uint8


def vips(pixels, interpretation="srgb"):
    return pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)


def as_pixels(image):
    return (image.rgb[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)


def test_rgb_is_read_exactly_and_written_exactly(tmp_path, photo):
    vips(photo).pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    assert image.rgb.shape == (1, 3, 30, 40)
    assert image.rgb.dtype == torch.float32
    assert (image.alpha, image.gray, image.sample_bits, image.notes) == (None, False, 8, ())
    np.testing.assert_array_equal(as_pixels(image), photo)
    for suffix in (".png", ".tif"):
        assert write_image(tmp_path / f"b{suffix}", image.rgb, image, alpha=None) == []
        again = pyvips.Image.new_from_file(str(tmp_path / f"b{suffix}"))
        np.testing.assert_array_equal(again.numpy(), photo)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_formats_are_close_and_are_what_they_say(tmp_path, photo, suffix):
    smooth = vips(photo).gaussblur(2).numpy()
    vips(smooth).pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    path = tmp_path / f"b{suffix}"
    write_image(path, image.rgb, image, alpha=None)
    written = pyvips.Image.new_from_file(str(path))
    loader = "webpload" if suffix == ".webp" else "jpegload"
    assert written.get("vips-loader") == loader
    assert np.abs(written.numpy().astype(int) - smooth).mean() < 4


def test_gray_is_processed_as_rgb_and_written_as_gray(tmp_path, photo):
    gray = photo[..., 1]
    vips(gray, "b-w").pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    assert image.gray
    for channel in range(3):
        np.testing.assert_array_equal(as_pixels(image)[..., channel], gray)
    write_image(tmp_path / "b.png", image.rgb, image, alpha=None)
    again = pyvips.Image.new_from_file(str(tmp_path / "b.png"))
    assert (again.bands, again.interpretation) == (1, "b-w")
    np.testing.assert_array_equal(again.numpy().squeeze(), gray)


@pytest.mark.parametrize("gray", [False, True])
def test_alpha_is_kept(tmp_path, photo, gray):
    alpha = np.linspace(0, 255, 30 * 40).astype(np.uint8).reshape(30, 40, 1)
    color = photo[..., :1] if gray else photo
    pixels = np.concatenate([color, alpha], axis=2)
    vips(pixels, "b-w" if gray else "srgb").pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    assert image.alpha.shape == (1, 1, 30, 40)
    write_image(tmp_path / "b.png", image.rgb, image, alpha=image.alpha)
    again = pyvips.Image.new_from_file(str(tmp_path / "b.png")).numpy()
    np.testing.assert_array_equal(again[..., -1:], alpha)
    visible = alpha[..., 0] > 0
    np.testing.assert_array_equal(again[visible], pixels[visible])


def test_jpeg_has_no_alpha_so_it_is_flattened_on_white_and_said(tmp_path):
    pixels = np.zeros((16, 16, 4), np.uint8)  # black, fully transparent
    vips(pixels).pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    notes = write_image(tmp_path / "b.jpg", image.rgb, image, alpha=image.alpha)
    assert "flattened on white" in notes[0]
    again = pyvips.Image.new_from_file(str(tmp_path / "b.jpg"))
    assert (again.bands, again.min()) == (3, 255)


@pytest.mark.parametrize("gray", [False, True])
def test_sixteen_bits_survive_png_and_tiff(tmp_path, gray):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65536, (9, 7, 1 if gray else 3), dtype=np.uint16)
    vips(pixels, "grey16" if gray else "rgb16").pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    assert image.sample_bits == 16
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"b{suffix}", image.rgb, image, alpha=None)
        again = pyvips.Image.new_from_file(str(tmp_path / f"b{suffix}"))
        assert again.format == "ushort"
        difference = again.numpy().reshape(pixels.shape).astype(int) - pixels
        assert np.abs(difference).max() <= (1 if gray else 0)  # gray goes through a weighted sum
    notes = write_image(tmp_path / "b.jpg", image.rgb, image, alpha=None)
    assert "16 bits written as 8" in notes[0]


def test_sixteen_bit_alpha_reaches_one(tmp_path):
    pixels = np.full((4, 4, 4), 65535, np.uint16)
    vips(pixels, "rgb16").pngsave(str(tmp_path / "a.png"))
    assert read_image(tmp_path / "a.png").alpha.min() == 1


def test_cmyk_is_converted_and_said(tmp_path, photo, caplog):
    cmyk = vips(photo).icc_transform("cmyk", input_profile="srgb")
    cmyk.jpegsave(str(tmp_path / "a.jpg"), Q=100)
    caplog.set_level("INFO", "runtime")
    image = read_image(tmp_path / "a.jpg")
    assert image.rgb.shape == (1, 3, 30, 40)
    assert "CMYK to sRGB" in image.notes[0]
    assert "CMYK to sRGB" in caplog.text
    # Colours outside the press' gamut are lost, so this is a sanity bound: not inverted, not gray.
    assert np.abs(as_pixels(image).astype(int) - photo).mean() < 16


def test_palette_is_expanded_and_said(tmp_path, photo):
    vips(photo).pngsave(str(tmp_path / "a.png"), palette=True)
    image = read_image(tmp_path / "a.png")
    assert image.rgb.shape == (1, 3, 30, 40)
    assert image.notes == ("palette expanded",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    quadrants = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    stored = vips(np.repeat(quadrants[..., None], 3, axis=2))
    stored.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    stored.jpegsave(str(tmp_path / "a.jpg"), Q=100)
    # What each EXIF orientation (1 ... 8) does to the corners 0 1 / 2 3, from the EXIF standard.
    corners = ["0123", "1032", "3210", "2301", "0213", "2031", "3120", "1302"][orientation - 1]
    image = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.png", image.rgb, image, alpha=None)
    shown = read_image(tmp_path / "b.png").rgb[0, 0]  # written upright, with no tag to turn it
    height, width = shown.shape
    assert (height, width) == ((32, 48) if orientation <= 4 else (48, 32))
    values = [shown[y, x] * 255 for y in (4, height - 5) for x in (4, width - 5)]
    assert [round(value.item() / 80) for value in values] == [int(corner) for corner in corners]


def test_icc_profile_is_applied_and_srgb_is_attached(tmp_path, photo):
    photo = np.stack([photo[..., 0], photo[..., 1] // 4, photo[..., 2] // 4], axis=2)  # saturated
    wide = vips(photo).icc_transform("p3", input_profile="srgb")
    wide.pngsave(str(tmp_path / "a.png"), profile="p3")
    assert np.abs(wide.numpy().astype(int) - photo).max() > 10  # the file's numbers do differ
    image = read_image(tmp_path / "a.png")
    assert image.notes == ("converted to sRGB (its profile applied)",)
    assert np.abs(as_pixels(image).astype(int) - photo).max() <= 3  # two 8-bit roundings
    write_image(tmp_path / "b.png", image.rgb, image, alpha=None)
    again = pyvips.Image.new_from_file(str(tmp_path / "b.png"))
    assert b"sRGB" in again.get("icc-profile-data").replace(b"\0", b"")


@pytest.mark.parametrize("damage", ["text", "short", "tags"])
def test_damaged_icc_profile_is_ignored_and_said(tmp_path, photo, damage):
    vips(photo).pngsave(str(tmp_path / "tagged.png"), profile="p3")
    profile = pyvips.Image.new_from_file(str(tmp_path / "tagged.png")).get("icc-profile-data")
    damaged = {
        "text": b"no profile" * 30,
        "short": profile[:200],
        "tags": profile[:128] + b"\xff" * (len(profile) - 128),
    }[damage]
    # libvips writes no damaged profile, so the JPEG's own segment for it (APP2) is written here.
    plain = vips(photo).jpegsave_buffer()
    segment = b"ICC_PROFILE\0\x01\x01" + damaged
    marker = b"\xff\xe2" + struct.pack(">H", len(segment) + 2)
    (tmp_path / "a.jpg").write_bytes(plain[:2] + marker + segment + plain[2:])
    (tmp_path / "b.jpg").write_bytes(plain)
    image = read_image(tmp_path / "a.jpg")
    assert image.notes == ("taken to be sRGB (its profile is damaged and was ignored)",)
    assert torch.equal(image.rgb, read_image(tmp_path / "b.jpg").rgb)


def png_with_profile(photo, profile, *more):
    """A PNG with an iCCP chunk, and ``more`` chunks (kind, content), before its pixels."""
    plain = vips(photo).pngsave_buffer(strip=True)

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    chunks = chunk(b"iCCP", b"a name\0\0" + zlib.compress(profile))
    chunks += b"".join(chunk(kind, content) for kind, content in more)
    after_header = 8 + 25
    return plain[:after_header] + chunks + plain[after_header:]


def test_a_profile_that_libpng_drops_is_said_to_be(tmp_path, photo):
    vips(photo).pngsave(str(tmp_path / "tagged.png"), profile="p3")
    profile = pyvips.Image.new_from_file(str(tmp_path / "tagged.png")).get("icc-profile-data")
    (tmp_path / "good.png").write_bytes(png_with_profile(photo, profile))
    assert read_image(tmp_path / "good.png").notes == ("converted to sRGB (its profile applied)",)
    (tmp_path / "bad.png").write_bytes(png_with_profile(photo, b"no profile" * 30))
    image = read_image(tmp_path / "bad.png")
    assert image.notes == (
        "taken to be sRGB (its profile is damaged or for another kind of image, and was ignored)",
    )
    np.testing.assert_array_equal(as_pixels(image), photo)
    (tmp_path / "srgb.png").write_bytes(png_with_profile(photo, b"bad" * 99, (b"sRGB", b"\0")))
    assert read_image(tmp_path / "srgb.png").notes == ()  # it says itself what it is


def test_first_page_is_read_and_the_others_are_mentioned(tmp_path, photo):
    pages = vips(np.concatenate([photo, 255 - photo]))
    pages.set_type(pyvips.GValue.gint_type, "page-height", 30)
    pages.tiffsave(str(tmp_path / "a.tif"))
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(as_pixels(image), photo)
    assert image.notes == ("only the first of 2 pages is read",)


def test_file_that_changed_is_read_anew(tmp_path, photo):
    """libvips caches what it opens by name; a result must never come from an older file."""
    path = tmp_path / "a.png"
    for pixels in (photo, 255 - photo):
        vips(pixels).pngsave(str(path))
        np.testing.assert_array_equal(as_pixels(read_image(path)), pixels)


@pytest.mark.parametrize("name", ["Ω 写真 é.png", "a[page=2]", "b[1].png", "%s.png"])
def test_names_are_taken_as_they_are(tmp_path, photo, name):
    vips(photo).pngsave(str(tmp_path / "plain.png"))
    (tmp_path / "plain.png").rename(tmp_path / name)
    image = read_image(tmp_path / name)
    out = tmp_path / f"out {name}.png"
    write_image(out, image.rgb, image, alpha=None)
    np.testing.assert_array_equal(as_pixels(read_image(out)), photo)


def test_svg_is_refused_because_its_loader_is_not_meant_for_strangers(tmp_path):
    path = tmp_path / "a.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>')
    with pytest.raises(ImageError, match="not a readable image"):
        read_header(path)


def test_size_limit_counts_pixels_and_says_how_to_allow_more(tmp_path, photo):
    vips(photo).pngsave(str(tmp_path / "a.png"))
    header = read_header(tmp_path / "a.png", max_pixels=1200)
    assert (header.width, header.height) == (40, 30)
    with pytest.raises(ImageError, match=r"40 x 30 px .* 160 x 120") as caught:
        read_image(tmp_path / "a.png", max_pixels=1199)
    assert "--max-pixels 1200" in caught.value.hint


def test_sides_that_a_format_cannot_hold_are_refused_early(tmp_path):
    check_output_size(tmp_path / "a.webp", 16383, 4)
    check_output_size(tmp_path / "a.png", 70000, 4)
    for name, side in (("a.webp", 16384), ("a.JPG", 65501)):
        with pytest.raises(ImageError, match="does not fit"):
            check_output_size(tmp_path / name, 4, side)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, photo, monkeypatch):
    vips(photo).pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    target = tmp_path / "b.png"
    target.write_bytes(b"old")

    def full_disk(_image, path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("runtime.images.image_io._save", full_disk)
        with pytest.raises(ResourceError, match="No space left"):
            write_image(target, image.rgb, image, alpha=None)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    write_image(target, image.rgb, image, alpha=None)
    np.testing.assert_array_equal(as_pixels(read_image(target)), photo)


def test_folder_that_is_gone_is_a_resource_error(tmp_path, photo):
    vips(photo).pngsave(str(tmp_path / "a.png"))
    image = read_image(tmp_path / "a.png")
    with pytest.raises(ResourceError, match="could not be written"):
        write_image(tmp_path / "gone" / "b.png", image.rgb, image, alpha=None)
