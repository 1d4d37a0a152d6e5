"""A hundred mixed files: ninety pictures of every kind that is read, ten broken in ten ways."""

import struct
import zlib

from tests.fuzz.targets.pictures import pictures

SIZES = ((12, 15), (9, 21))
"""Height and width of the pictures, in px: one round of all kinds for each."""
REFUSED = {
    *("lab.tif", "int.tif"),
    *("rgb.ppm", "rgb.bmp", "rgb.tga", "rgb.jp2", "matrix.txt", "drawing.svg"),
}
GOOD = 90


def broken_files():
    """Ten files that are no pictures, each in its own way: name -> content, what the error says."""
    whole = pictures(height=64, width=64)
    return {
        "broken-empty.png": (b"", "empty"),
        "broken-page.jpg": (b"<html>404 not found</html>", "a web page"),
        "broken-pointer.webp": (b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer"),
        "broken-zeros.tif": (bytes(1000), "not a readable image"),
        "broken-cut.png": (whole["rgb.png"][:-3000], "truncated or damaged"),
        "broken-cut.jpg": (whole["rgb.jpg"][: len(whole["rgb.jpg"]) // 2], "truncated or damaged"),
        "broken-cut.gif": (whole["rgb.gif"][:-1000], "Unexpected end of GIF"),
        "broken-strips.tif": (whole["rgb.tif"][:-2000], "truncated or damaged"),
        "broken-bomb.png": (bomb(30_000), "30000 x 30000 px"),
        "broken-signed.tif": (whole["int.tif"], "signed 32-bit integers"),
    }


def good_files():
    """Ninety pictures: name -> content, and height and width of the picture in px."""
    found = {}
    for number, (height, width) in enumerate(SIZES):
        for name, content in pictures(seed=number, height=height, width=width).items():
            upright = (width, height) if name.startswith("exif.") else (height, width)
            if name not in REFUSED and len(found) < GOOD:
                found[f"{number}-{name}"] = (content, upright)
    return found


def write_hundred_files(folder):
    """Write them into a new folder."""
    folder.mkdir(parents=True)
    for name, (content, _) in (good_files() | broken_files()).items():
        (folder / name).write_bytes(content)


def bomb(side):
    """A PNG of a few hundred bytes that declares side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
