"""Mutations of plain bytes: flip, overwrite, truncate, splice, repeat, insert."""

from collections.abc import Callable
from random import Random

INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff")
INTERESTING += (b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x01\x00", b'"', b"\\", b"{")
INTERESTING += (b"}", b"[", b"]", b",", b":", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n")


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """One to four mutations."""
    for _ in range(1 + (rng.random() < 0.4) + (rng.random() < 0.2) + (rng.random() < 0.1)):
        data = rng.choice(_MUTATIONS)(data, rng)
    return data


def _flip(data: bytes, rng: Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    new = rng.choice(INTERESTING) if rng.random() < 0.6 else rng.randbytes(rng.randint(1, 8))
    return data[:place] + new + data[place + len(new) :]


def _truncate(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:  # the last few bytes are where readers forget to look
        return data[: -rng.randint(1, 16)]
    return data[: rng.randrange(len(data) + 1)]


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    length = min(len(data) - start, rng.choice((1, 2, 4, 12, 50, 300)))
    return start, start + length


def _splice(data: bytes, rng: Random) -> bytes:
    """A span copied over another place."""
    start, end = _span(data, rng)
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[start:end] + data[place + end - start :]


def _repeat(data: bytes, rng: Random) -> bytes:
    start, end = _span(data, rng)
    times = rng.choice((1, 1, 1, 2, 10, 500))
    return data[:end] + data[start:end] * times + data[end:]


def _insert(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    new = rng.choice(INTERESTING) if rng.random() < 0.6 else rng.randbytes(rng.randint(1, 40))
    return data[:place] + new + data[place:]


def _delete(data: bytes, rng: Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


_MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_flip, _flip, _overwrite, _overwrite, _truncate, _splice, _repeat, _insert, _delete),
)
