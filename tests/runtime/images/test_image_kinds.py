"""Samples of every type and meaning: converted on purpose and said, or refused by name."""

import io
import resource

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms
from skimage import color

from runtime.images.image_io import read_header, read_image, write_image
from schemas.errors import ImageError
from tests.runtime.images.make_tiff import CMYK, GRAY, ICC_LAB, LAB, RGB, make_tiff

RAMP = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)


@pytest.fixture(scope="module")
def photo():
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:120:2, 100:260:2])  # [60, 80, 3] uint8


@pytest.fixture
def read(tmp_path):
    def written(content, name="a.tif"):
        (tmp_path / name).write_bytes(content)
        return read_image(tmp_path / name)

    return written


def values(image):
    return image.rgb[0].permute(1, 2, 0).numpy()


def pillow(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Floating point


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_floating_point_gray_is_what_its_numbers_say(read, dtype):
    image = read(make_tiff(RAMP.astype(dtype), GRAY))
    assert (image.gray, image.sample_bits) == (True, 16)
    np.testing.assert_allclose(values(image)[..., 1], RAMP, atol=1e-3)
    assert "floating-point samples taken to be coded as in sRGB" in image.notes[0]


@pytest.mark.parametrize("profile", [b"", srgb_profile()], ids=["plain", "profile"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_point_with_and_without_a_profile(read, photo, channels, profile):
    pixels = photo[..., :channels]
    used = profile if channels == 3 else b""
    content = make_tiff(pixels.astype("f4") / 255, RGB if channels == 3 else GRAY, profile=used)
    image = read(content)
    np.testing.assert_allclose(
        values(image)[..., :channels], pixels / 255, atol=1.5 / 255 if used else 1e-4
    )
    assert "floating-point" in image.notes[0]
    assert image.has_profile == bool(used)


def test_floating_point_alpha_is_0_to_1(read, photo):
    rgba = np.concatenate([photo, photo[..., :1]], axis=2).astype("f4") / 255
    image = read(make_tiff(rgba, RGB, extra=[2]))
    np.testing.assert_allclose(image.alpha[0, 0].numpy(), rgba[..., 3], atol=1e-4)
    gray = read(make_tiff(rgba[..., [0, 3]], GRAY, extra=[2]))
    np.testing.assert_allclose(gray.alpha[0, 0].numpy(), rgba[..., 3], atol=1e-4)


def test_floating_point_beyond_its_range_is_clipped_and_said(read):
    pixels = RAMP.copy()
    pixels[:16] -= 0.1
    pixels[-16:] *= 2
    image = read(make_tiff(pixels, GRAY))
    np.testing.assert_allclose(values(image)[..., 0], pixels.clip(0, 1), atol=1e-4)
    assert "outside 0 ... 1 and are clipped" in image.notes[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ramp: ramp * 255, "0 ... 255"),
        (lambda ramp: ramp * 65535, "65535|6.5"),
        (lambda ramp: ramp * 2 - 1, "-1 ... 1"),
        (lambda ramp: np.where(ramp > 0.5, np.nan, ramp), "not a number"),
        (lambda ramp: np.where(ramp > 0.9, np.inf, ramp), "infinite"),
    ],
)
def test_floating_point_of_another_range_is_refused(read, change, said):
    with pytest.raises(ImageError, match=said):
        read(make_tiff(change(RAMP).astype("f4"), GRAY))


# Integers


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("i1", "signed 8-bit"),
        ("i2", "signed 16-bit"),
        ("i4", "signed 32-bit"),
        ("u4", "unsigned 32-bit"),
        ("i8", "64 bits"),
        ("f8", "64 bits"),
        ("c8", "complex"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_without_a_declared_white_are_refused_by_name(
    tmp_path, photo, dtype, name, channels
):
    pixels = (photo[..., :channels] // 2).astype(dtype)
    (tmp_path / "a.tif").write_bytes(make_tiff(pixels, RGB if channels == 3 else GRAY))
    with pytest.raises(ImageError, match=name):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("extra", [1, 2])
def test_sixteen_bit_alpha_premultiplied_or_not(read, photo, extra):
    alpha = np.full((*photo.shape[:2], 1), 32768, np.uint16)
    rgb = photo.astype(np.uint16) * 257
    stored = rgb // 2 if extra == 1 else rgb
    image = read(make_tiff(np.concatenate([stored, alpha], axis=2), RGB, extra=[extra]))
    np.testing.assert_allclose(values(image), rgb / 65535, atol=2e-3)
    np.testing.assert_allclose(image.alpha.numpy(), 0.5, atol=1e-4)


# Colour spaces


@pytest.mark.parametrize("dtype", ["f4", "u2"])
def test_cielab_is_converted_and_said(read, photo, dtype):
    lab = color.rgb2lab(photo)
    if dtype == "u2":  # TIFF 6.0, section 23: L* of 0 ... 100 over all 16 bits, a* and b* by 256
        lab = (lab * [655.35, 256, 256]).round().astype(np.int32).astype(np.uint16)
    image = read(make_tiff(lab.astype(dtype), LAB))
    # What is under D65 here is read as under D50; neutral colours are the same.
    assert np.abs(values(image) - photo / 255).mean() < 1 / 255
    assert image.notes == ("converted from CIELab to sRGB (under D50)",)
    assert image.sample_bits == 16


def test_cielab_that_the_library_cannot_read_is_refused_by_name(read, photo):
    lab = color.rgb2lab(photo) * [2.55, 1, 1]
    with pytest.raises(ImageError, match="8-bit CIELab"):
        read(make_tiff(lab.round().astype(np.int16).astype(np.uint8), LAB))
    with pytest.raises(ImageError, match="not a number"):
        read(make_tiff(np.full((4, 4, 3), np.nan, "f4"), LAB))


@pytest.mark.parametrize(
    ("channels", "photometric", "said"),
    [
        (5, RGB, "5 channels, but RGB has 3, or one more for alpha"),
        (3, GRAY, "3 channels, but gray has 1"),
        (60, GRAY, "60 channels"),
        (6, CMYK, "6 channels, but CMYK has 4"),
        (3, ICC_LAB, "'multiband'"),
    ],
)
def test_channels_without_a_meaning_are_refused_by_their_number(
    tmp_path, photo, channels, photometric, said
):
    pixels = np.repeat(photo[..., :1], channels, axis=2)
    usual = {RGB: 3, GRAY: 1, CMYK: 4, ICC_LAB: 3}[photometric]
    (tmp_path / "a.tif").write_bytes(make_tiff(pixels, photometric, extra=[0] * (channels - usual)))
    with pytest.raises(ImageError, match=said):
        read_header(tmp_path / "a.tif")


def test_many_channels_are_refused_before_they_are_decoded(tmp_path):
    image = pyvips.Image.black(3000, 3000, bands=60).copy(interpretation="b-w")
    image.tiffsave(str(tmp_path / "a.tif"), compression="deflate")  # decoded: 540 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="60 channels"):
        read_image(tmp_path / "a.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_the_size_limit_counts_what_samples_take(tmp_path):
    rgba = np.zeros((30, 40, 4), np.float32)  # 16 bytes a pixel, where three float32 have 12
    (tmp_path / "a.tif").write_bytes(make_tiff(rgba, RGB, extra=[2]))
    read_image(tmp_path / "a.tif", max_pixels=1600)
    with pytest.raises(ImageError, match="16 bytes each") as caught:
        read_image(tmp_path / "a.tif", max_pixels=1599)
    assert "--max-pixels 1600" in caught.value.hint


# Formats


OTHER_FILES = {
    "matrix": (b"2 2\n1 2\n3 4\n", ""),
    "table": (b"1,2\n3,4\n", ""),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', "SVG"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git-LFS"),
    "pdf": (b"%PDF-1.4\n", "PDF"),
    "bmp": (pillow(Image.new("RGB", (4, 4)), "BMP"), "BMP"),
    "ppm": (pillow(Image.new("RGB", (4, 4)), "PPM"), "Netpbm"),
    "tga": (pillow(Image.new("RGB", (4, 4)), "TGA"), ""),
    "psd": (b"8BPS\0\x01", "Photoshop"),
    "jxl": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    "vips": (b"\xb6\xa6\xf2\x08" + bytes(60), ""),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_no_images_whatever_they_are_called(tmp_path, kind):
    content, name = OTHER_FILES[kind]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=f"not a readable image.*{name}") as caught:
        read_header(tmp_path / "a.png")
    assert "JPEG, PNG, WebP, TIFF, GIF and HEIF" in caught.value.hint


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".gif", ".avif"])
def test_every_format_is_read_by_its_content(tmp_path, photo, suffix):
    image = pyvips.Image.new_from_array(photo).copy(interpretation="srgb")
    (tmp_path / "a.dat").write_bytes(image.write_to_buffer(suffix))
    assert np.abs(values(read_image(tmp_path / "a.dat")) - photo / 255).mean() < 0.06


# Frames and pages


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_is_read_and_said_and_has_no_alpha_of_the_readers(read, photo, kind):
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    mode = "RGBA" if kind != "GIF" else "RGB"
    first, second = (frame.convert(mode) for frame in frames)
    image = read(pillow(first, kind, save_all=True, append_images=[second]), "a.dat")
    assert "only the first of 2 frames is read" in image.notes
    assert image.alpha is None
    assert np.abs(values(image) - photo / 255).mean() < 0.06


def test_an_opaque_alpha_channel_of_a_still_is_kept(read, photo):
    image = read(pillow(Image.fromarray(photo).convert("RGBA"), "PNG"))
    assert image.alpha.min() == 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA", "RGBA"])
def test_transparency_of_every_kind_becomes_alpha(read, photo, mode):
    source = Image.fromarray(photo)
    options = {}
    if mode in {"LA", "RGBA"}:
        source.putalpha(Image.fromarray(photo[..., 0]))
        source = source.convert(mode)
    else:
        source = source.convert(mode)
        first = source.getpixel((0, 0))
        options["transparency"] = first
    image = read(pillow(source, "PNG", **options))
    assert image.alpha.shape == (1, 1, *photo.shape[:2])
    assert image.alpha.min() < 1
    assert image.gray == (mode in {"L", "LA"})


# Profiles


def with_profile(photo, profile, mode="RGB"):
    return pillow(Image.fromarray(photo).convert(mode), "JPEG", quality=95, icc_profile=profile)


def changed(profile, place, content):
    return profile[:place] + content + profile[place + len(content) :]


def test_a_profile_that_is_not_applied_is_not_said_to_be(read, photo):
    srgb = srgb_profile()
    p3 = pyvips.Image.new_from_buffer(
        pyvips.Image.new_from_array(photo)
        .copy(interpretation="srgb")
        .icc_transform("p3", input_profile="srgb")
        .pngsave_buffer(profile="p3"),
        "",
    ).get("icc-profile-data")
    assert "its profile applied" in read(with_profile(photo, p3)).notes[0]
    unused = {
        "for gray": with_profile(photo, changed(p3, 16, b"GRAY")),
        "for CMYK": with_profile(photo, changed(p3, 16, b"CMYK")),
        "for RGB, not gray": with_profile(photo, srgb, "L"),
        "for RGB, not CMYK": with_profile(photo, srgb, "CMYK"),
        "describe": with_profile(photo, changed(p3, 12, b"link")),
        "cannot be applied": with_profile(photo, changed(p3, 8, b"\x09")),
        "cannot be applied and": with_profile(photo, changed(p3, 20, b"XXXX")),
    }
    for content in unused.values():
        image = read(content)
        assert not any("applied)" in note for note in image.notes)
        assert any("and was ignored" in note for note in image.notes), image.notes
    plain = read(with_profile(photo, None))
    assert torch.equal(read(unused["cannot be applied"]).rgb, plain.rgb)
    assert torch.equal(read(unused["describe"]).rgb, plain.rgb)


def test_warnings_of_the_library_do_not_reach_the_screen(read, photo, capfd):
    read(with_profile(photo, changed(srgb_profile(), 8, b"\x09")))
    with pytest.raises(ImageError):
        read(pillow(Image.fromarray(photo), "PNG")[:-500])
    read(pillow(Image.fromarray(photo), "JPEG")[:-2])
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


# Ends


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_is_read_and_said(read, photo, missing, progressive):
    content = pillow(Image.fromarray(photo), "JPEG", progressive=progressive)
    image = read(content[:-missing])
    assert torch.equal(image.rgb, read(content).rgb)
    assert image.notes == ("its last bytes are missing, but the picture is complete",)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [3, 4, 10, 500])
def test_a_jpeg_that_lacks_more_is_refused(read, photo, missing, progressive):
    content = pillow(Image.fromarray(photo), "JPEG", progressive=progressive)
    with pytest.raises(ImageError, match="truncated or damaged"):
        read(content[:-missing])


@pytest.mark.parametrize(("kind", "missing"), [("PNG", 12), ("PNG", 4), ("GIF", 1)])
def test_other_formats_are_complete_without_their_end(read, photo, kind, missing):
    content = pillow(Image.fromarray(photo), kind)
    assert torch.equal(read(content[:-missing]).rgb, read(content).rgb)


def test_a_jpeg_with_damaged_data_is_read_with_a_warning(read, photo):
    content = pillow(Image.fromarray(photo), "JPEG")
    middle = len(content) // 2
    for _ in range(2):  # what is said of one image is not said of the next
        image = read(content[:middle] + b"\xff\x00" * 40 + content[middle + 80 :])
        assert len(image.notes) == 1
        assert image.notes[0].startswith("damaged (")
        assert image.notes[0].isprintable()
        assert read(content).notes == ()


def test_a_jpeg_that_lacks_something_in_its_middle_is_refused(read, photo):
    content = pillow(Image.fromarray(photo), "JPEG")
    middle = len(content) // 2
    with pytest.raises(ImageError, match="premature end of data"):
        read(content[:middle] + content[middle + 200 :])


def test_a_pipe_is_no_image(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_header(tmp_path / "a.png")


def test_reading_keeps_no_file_open(tmp_path, photo):
    from pathlib import Path

    Image.fromarray(photo).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        read_image(tmp_path / "a.png")
        read_header(tmp_path / "a.png")
    pyvips.cache_set_max(0)  # libvips keeps its last operations, and their files with them
    pyvips.cache_set_max(100)
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
    write_image(tmp_path / "b.png", image.rgb, image, alpha=None)
