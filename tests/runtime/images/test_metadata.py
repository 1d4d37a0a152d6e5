"""EXIF, XMP, density and orientation on their way to a result."""

import numpy as np
import pytest
import pyvips
from PIL import Image, PngImagePlugin

from runtime.images.image_io import read_image, write_image
from runtime.images.made_with import read_record

MAKE, ORIENTATION, USER_COMMENT, TAKEN = 0x010F, 0x0112, 0x9286, 0x9003
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rights>somebody</rights></x:xmpmeta>"


@pytest.fixture
def photo(tmp_path):
    """A JPEG that stands on its side, 40 x 30 px upright."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Somebody's", 6
    exif.get_ifd(EXIF_IFD)[TAKEN] = "2020:01:02 03:04:05"
    exif.get_ifd(GPS_IFD)[1] = "N"
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300), xmp=XMP)
    return tmp_path / "a.jpg"


def written(photo, suffix, **options):
    image = read_image(photo)
    out = photo.with_name(f"b{suffix}")
    notes = write_image(out, image.rgb, image, alpha=None, made_with={"steps": 4}, **options)
    return out, notes


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif"])
def test_exif_is_kept_and_says_upright(photo, suffix):
    out, notes = written(photo, suffix)
    assert notes == []
    with Image.open(out) as image:
        exif = image.getexif()
        assert image.size == (40, 30)
    assert exif[MAKE] == "Somebody's"
    assert exif[ORIENTATION] == 1
    assert exif.get_ifd(EXIF_IFD)[TAKEN] == "2020:01:02 03:04:05"
    assert exif.get_ifd(GPS_IFD)[1] == "N"
    assert read_record(out) == {"steps": 4}
    # Nothing turns it a second time.
    assert read_image(out).rgb.shape == (1, 3, 30, 40)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_xmp_and_density_are_kept(photo, suffix):
    out, _ = written(photo, suffix)
    image = pyvips.Image.new_from_file(str(out))
    assert bytes(image.get("xmp-data")).rstrip(b"\0") == XMP
    if suffix in {".png", ".jpg", ".tif"}:
        assert image.xres == pytest.approx(300 / 25.4, rel=1e-3)


def test_tiff_gets_no_exif_which_is_said(photo):
    out, notes = written(photo, ".tif")
    assert notes == ["EXIF left out, which is not written to .tif"]
    with Image.open(out) as image:
        assert image.size == (40, 30)
        assert image.tag_v2.get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_strip_leaves_all_of_it_out_but_how_it_was_made(photo, suffix):
    profile = pyvips.Image.new_from_file(str(photo))
    profile.icc_transform("p3", input_profile="srgb").jpegsave(str(photo), profile="p3")
    out, notes = written(photo, suffix, strip=True)
    assert notes == []
    content = out.read_bytes()
    assert b"Somebody" not in content
    assert b"somebody" not in content
    assert not pyvips.Image.new_from_file(str(out)).get_typeof("icc-profile-data")
    assert read_record(out) == {"steps": 4}


def test_much_metadata_is_left_out(photo, tmp_path):
    image = pyvips.Image.new_from_file(str(photo)).copy_memory().copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", b"x" * (2**20 + 1))
    image.webpsave(str(tmp_path / "big.webp"))
    loaded = read_image(tmp_path / "big.webp")
    assert any("too large" in note for note in loaded.notes)
    assert not loaded.metadata.fields


@pytest.mark.parametrize(("suffix", "worse"), [(".jpg", 30), (".webp", 30), (".avif", 30)])
def test_quality(photo, suffix, worse):
    fine, _ = written(photo, suffix)
    size = fine.stat().st_size
    coarse, _ = written(photo, suffix, quality=worse)
    assert coarse.stat().st_size < size


def test_text_that_is_none_does_no_harm(photo, tmp_path):
    content = photo.read_bytes()
    photo.write_bytes(content.replace(b"Somebody's", b"Some\x98ody's"))
    out, _ = written(photo, ".png")
    with Image.open(out) as image:
        exif = image.getexif()
    assert exif.get_ifd(EXIF_IFD)[TAKEN] == "2020:01:02 03:04:05"

    info = PngImagePlugin.PngInfo()
    info.add_text("Tit\xe9l", "x")  # Latin-1, as PNG has it
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png", pnginfo=info)
    image = read_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", image.rgb, image, alpha=None)
    assert read_record(tmp_path / "a.png") is None
