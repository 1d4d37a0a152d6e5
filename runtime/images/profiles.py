"""Colours of any kind to sRGB, through the profile that a file embeds where it can be used."""

import pyvips

from runtime.images.sample_kinds import SampleKind
from runtime.images.vips_warnings import collected_warnings

APPLIED = "its profile applied"
DAMAGED = "its profile is damaged and was ignored"
REFUSED = "its profile is damaged or for another kind of image, and was ignored"
"""What the reader of a format would not even hand over."""
_HARMLESS = "fallback to suggested"
"""libvips took the rendering intent that the profile prefers."""

_PROFILE_SPACES = {"gray": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_DEVICE_CLASSES = {b"scnr", b"mntr", b"prtr", b"spac"}


def to_srgb(image: pyvips.Image, kind: SampleKind) -> tuple[pyvips.Image, str]:
    """Return ``image`` as three bands of sRGB, and how it got there.

    Args:
        image: 8 or 16 bits, without alpha; of CIELab, floating-point.
        kind: what its samples mean.

    Returns:
        The image, with as many bits (16 from CIELab), and what was done with its profile: empty
        where it has none.
    """
    depth = 8 if image.format == "uchar" else 16
    if kind.space == "CIELab":
        # ICC's connection space has D50 for white, and so has TIFF (Adobe's Technical Notes on it).
        return image.icc_export(output_profile="srgb", pcs="lab", depth=depth), ""
    if not image.get_typeof("icc-profile-data"):
        return _plain(image, depth), ""
    problem = profile_problem(image.get("icc-profile-data"), kind)
    if not problem:
        converted, problem = _apply(image, depth)
        if converted is not None:
            return converted, APPLIED
    plain = image.copy()
    plain.remove("icc-profile-data")
    return _plain(plain, depth), problem


def _plain(image: pyvips.Image, depth: int) -> pyvips.Image:
    """Convert without a profile: gray and RGB are sRGB's, CMYK is libvips' default press."""
    return image.colourspace("srgb" if depth == 8 else "rgb16")


def _apply(image: pyvips.Image, depth: int) -> tuple[pyvips.Image | None, str]:
    """Convert by the embedded profile; None, and why, where libvips would take another one."""
    with collected_warnings() as warnings:
        try:
            converted = image.icc_transform("srgb", embedded=True, depth=depth)
        except pyvips.Error:
            return None, "its profile cannot be applied and was ignored"
    if any(not warning.startswith(_HARMLESS) for warning in warnings):
        return None, "its profile cannot be applied and was ignored"
    return converted, ""


def profile_problem(data: bytes, kind: SampleKind) -> str:
    """Why ``data`` is no ICC profile for such an image, as far as its header tells; or empty.

    Offsets are those of ICC.1:2022, section 7; a hundred tags is as many as lcms, which reads it,
    takes.
    """
    declared_bytes = int.from_bytes(data[:4], "big")
    tags = int.from_bytes(data[128:132], "big")
    if data[36:40] != b"acsp" or not 132 < declared_bytes <= len(data) or not 0 < tags <= 100:
        return DAMAGED
    if data[16:20] != _PROFILE_SPACES[kind.space]:
        space = data[16:20].decode("ascii", "replace").strip()
        name = space if space.isalnum() else "unknown colours"
        return f"its profile is for {name}, not {kind.space}, and was ignored"
    if data[12:16] not in _DEVICE_CLASSES:
        return "its profile does not describe an image's colours and was ignored"
    return ""
