"""Whether all scans of a JPEG are there, told by their headers; names as in ITU-T T.81, annex B."""

from collections.abc import Iterator

_SOS, _EOI = 0xDA, 0xD9
_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""DHT, JPG and DAC, which lie among the start-of-frame markers C0 ... CF."""

_ALONE = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}
"""What follows 0xFF and has no segment: stuffing, TEM, fill bytes, RST and SOI."""

_COEFFICIENTS = 64


def has_all_scans(data: bytes) -> bool:
    """Whether every coefficient of every component is sent down to its last bit.

    A progressive JPEG that is cut between two scans decodes without complaint, only coarser.
    Whether the last scan is whole is for the decoder to tell.
    """
    unsent: dict[int, set[int]] = {}
    for marker, segment in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            unsent = {component: set(range(_COEFFICIENTS)) for component in segment[6::3]}
        elif marker == _SOS:
            # Ns; Cs and Td/Ta of each component; Ss, Se, Ah/Al.
            components, spectrum = segment[1:-3:2], segment[-3:]
            if len(spectrum) == 3 and spectrum[2] & 0x0F == 0:
                for component in components:
                    sent = range(spectrum[0], spectrum[1] + 1)
                    unsent.get(component, set()).difference_update(sent)
    return bool(unsent) and not any(unsent.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every marker with its segment, up to the end of the image or of what can be followed."""
    at = 2
    while True:
        at = data.find(b"\xff", at)  # what is between segments is entropy-coded data
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if marker == _EOI or length < 2 or len(segment) != length - 2:
            return
        yield marker, segment
        at += 2 + length
