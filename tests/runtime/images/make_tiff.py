"""Small uncompressed TIFF files of any sample type and photometric kind, written tag by tag."""

import struct
from collections.abc import Sequence

import numpy as np

GRAY, RGB, CMYK, LAB, ICC_LAB = 1, 2, 5, 8, 9
"""Values of PhotometricInterpretation (TIFF 6.0, section 8)."""

_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3, "c": 6}
_SHORT, _LONG, _BYTES = 3, 4, 7


def make_tiff(
    pixels, photometric: int, *, extra: Sequence[int] = (), profile: bytes = b""
) -> bytes:
    """A TIFF of one strip.

    Args:
        pixels: [H, W] or [H, W, channels], of any number type.
        photometric: what the channels mean.
        extra: ExtraSamples: 0 unknown, 1 premultiplied alpha, 2 alpha.
        profile: an ICC profile to embed.
    """
    pixels = np.atleast_3d(pixels)
    height, width, channels = pixels.shape
    data = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()
    tags = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * pixels.dtype.itemsize] * channels),
        (259, _SHORT, [1]),
        (262, _SHORT, [photometric]),
        (273, _LONG, [8]),  # the pixels follow the header
        (277, _SHORT, [channels]),
        (278, _LONG, [height]),
        (279, _LONG, [len(data)]),
        (284, _SHORT, [1]),
        *([(338, _SHORT, list(extra))] if extra else []),
        (339, _SHORT, [_SAMPLE_FORMATS[pixels.dtype.kind]] * channels),
        *([(34675, _BYTES, list(profile))] if profile else []),
    ]
    data += bytes(len(data) % 2)
    directory_start = 8 + len(data)
    values_start = directory_start + 2 + 12 * len(tags) + 4
    directory, values = struct.pack("<H", len(tags)), b""
    for tag, kind, numbers in tags:
        sign = {_SHORT: "H", _LONG: "I", _BYTES: "B"}[kind]
        raw = struct.pack(f"<{len(numbers)}{sign}", *numbers)
        place = raw.ljust(4, b"\0")
        if len(raw) > 4:
            place = struct.pack("<I", values_start + len(values))
            values += raw + bytes(len(raw) % 2)
        directory += struct.pack("<HHI", tag, kind, len(numbers)) + place
    header = b"II*\0" + struct.pack("<I", directory_start)
    return header + data + directory + bytes(4) + values
