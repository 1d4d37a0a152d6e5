"""A file that lacks a part of its picture is refused, wherever the part is."""

import resource
import struct

import numpy as np
import pytest
import pyvips
import torch
from skimage import data

from runtime.images.image_io import read_header, read_image
from runtime.images.jpeg_scans import has_all_scans
from runtime.images.tiff_tags import read_tiff_tags
from schemas.errors import ImageError
from tests.runtime.images.make_tiff import RGB, make_tiff

CUTS = (*range(1, 40), *range(40, 600, 7))


@pytest.fixture(scope="module")
def photo():
    pixels = np.ascontiguousarray(data.astronaut()[:40, 100:148])  # [40, 48, 3] uint8
    return pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")


@pytest.fixture
def read(tmp_path):
    def written(content):
        (tmp_path / "a").write_bytes(content)
        return read_image(tmp_path / "a")

    return written


def equal_or_refused(read, content):
    """The cuts at which a file is still read; each of them must give the whole file's picture."""
    whole = read(content).rgb
    readable = []
    for cut in CUTS:
        try:
            image = read(content[:-cut])
        except ImageError:
            continue
        assert torch.equal(image.rgb, whole), f"{cut} bytes are missing, and nobody noticed"
        readable.append(cut)
    return readable


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("options", [{}, {"interlace": True}, {"restart_interval": 2}])
def test_a_cut_jpeg_is_read_if_its_picture_is_whole_and_never_else(read, photo, quality, options):
    assert equal_or_refused(read, photo.jpegsave_buffer(Q=quality, **options)) == [1, 2]


@pytest.mark.parametrize("compression", ["none", "jpeg", "deflate", "lzw"])
@pytest.mark.parametrize("options", [{}, {"tile": True, "tile_width": 16, "tile_height": 16}])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_cut_tiff_is_refused(read, photo, compression, options, bigtiff):
    content = photo.tiffsave_buffer(compression=compression, bigtiff=bigtiff, **options)
    # Where a directory ends the file, its last 8 bytes say that there is no other one.
    assert set(equal_or_refused(read, content)) <= set(range(1, 9))


@pytest.mark.parametrize("lossless", [False, True])
def test_a_cut_webp_is_refused(read, photo, lossless):
    assert equal_or_refused(read, photo.webpsave_buffer(lossless=lossless)) == []


def test_a_jpeg_cut_between_two_scans_lacks_the_last(read, photo):
    """Such a file decodes without a complaint, only coarser."""
    content = photo.jpegsave_buffer(interlace=True)
    last_scan = content.rindex(b"\xff\xda")
    huffman_table = content.rfind(b"\xff\xc4", 0, last_scan)
    assert has_all_scans(content)
    assert not has_all_scans(content[:huffman_table])
    with pytest.raises(ImageError, match="truncated"):
        read(content[:huffman_table])


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0\2\0\0\0"])
def test_scans_of_what_is_no_jpeg(content):
    assert not has_all_scans(content)


def test_damage_in_the_last_rows_of_a_jpeg_is_said(read, photo):
    """libvips stops at a warning before the next rows, and there are none after the last."""
    content = photo.jpegsave_buffer(Q=90)
    damaged = content[:-12] + b"\xff\xd5" + content[-10:]  # a restart marker out of place
    try:
        assert read(damaged).notes[0].startswith("damaged (")
    except ImageError as error:
        assert "premature end" in str(error)  # noqa: PT017  either is honest


def test_a_jpeg_with_a_harmless_oddity_is_read_and_said(read, photo):
    """Some telephones write other limits into a sequential scan than the only ones there are."""
    content = bytearray(photo.jpegsave_buffer())
    scan = content.index(b"\xff\xda")
    end_of_spectrum = scan + 4 + 1 + 2 * content[scan + 4] + 1
    assert content[end_of_spectrum] == 63
    whole = read(bytes(content)).rgb
    content[end_of_spectrum] = 0
    image = read(bytes(content))
    assert torch.equal(image.rgb, whole)
    assert "Invalid SOS parameters" in image.notes[0]


def with_tag(content, tag, number):
    """A TIFF of `make_tiff` with one tag of 32 bits changed."""
    place = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
    return content[:place] + struct.pack("<I", number) + content[place + 4 :]


@pytest.mark.parametrize("tag", [256, 257])
def test_a_tiff_that_declares_more_than_it_holds_is_refused_from_its_header(tmp_path, tag):
    content = make_tiff(np.zeros((64, 64, 3), np.uint8), RGB)
    (tmp_path / "a.tif").write_bytes(with_tag(content, tag, 1_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="truncated or damaged"):
        read_header(tmp_path / "a.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_a_tiff_without_enough_strips_is_refused(read):
    content = make_tiff(np.zeros((64, 64, 3), np.uint8), RGB)
    read(content)
    with pytest.raises(ImageError, match="truncated or damaged"):
        read(with_tag(content, 278, 16))  # 16 rows a strip, so four strips


def test_a_tiff_whose_strips_do_not_tell_their_length_is_read(read):
    """libtiff makes it up, as old writers need."""
    content = make_tiff(np.full((8, 8, 3), 7, np.uint8), RGB)
    assert torch.equal(read(with_tag(content, 279, 0)).rgb, read(content).rgb)


@pytest.mark.parametrize("content", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0+\0\x08\0\0"])
def test_tags_of_what_is_no_tiff(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    tags = read_tiff_tags(tmp_path / "a.tif")
    assert not tags.values
    assert not tags.lacks_data
