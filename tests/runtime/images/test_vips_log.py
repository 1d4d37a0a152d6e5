"""Messages of libvips and GLib reach logging, and nothing reaches the screen."""

import logging
import struct

import numpy as np
import pytest
import pyvips

from runtime.images import vips_log
from runtime.images.image_io import read_image
from schemas.errors import ImageError


def c_string(text):
    return pyvips.ffi.new("char[]", text)


def test_a_message_that_is_not_utf_8(caplog):
    with caplog.at_level(logging.DEBUG, logger="pyvips"):
        warning = 1 << 4
        vips_log._pass_on(c_string(b"VIPS"), warning, c_string(b"profile caf\xe9"), None)
        vips_log._pass_on(pyvips.ffi.NULL, 1 << 3 | 1, c_string(b"critical, within another"), None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert caplog.records[0].getMessage() == "VIPS: profile caf\ufffd"


@pytest.mark.parametrize("height", [2**31 - 1, 2**30 + 12])
def test_sizes_that_fit_no_property_are_refused_quietly(tmp_path, capfd, height):
    """GLib complains of them to stderr, when libvips asks for the picture."""
    path = tmp_path / "a.avif"
    pyvips.Image.new_from_array(np.zeros((20, 15, 3), np.uint8)).heifsave(
        str(path), compression="av1"
    )
    data = path.read_bytes()
    size = data.index(b"ispe") + 12  # behind the box's name, version and flags, and the width
    assert struct.unpack(">I", data[size : size + 4]) == (20,)
    path.write_bytes(data[:size] + struct.pack(">I", height) + data[size + 4 :])
    with pytest.raises(ImageError):
        read_image(path)
    assert capfd.readouterr().err == ""
