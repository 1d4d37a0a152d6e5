"""Mutations that keep a picture's outer layers sound, so that what lies within is read."""

import struct
import zlib
from random import Random

from tests.fuzz.mutate.data import mutate_bytes

PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_ENTRY_BYTES = 12


def mutate_png_chunk(data: bytes, rng: Random) -> bytes:
    """Damage the content of one chunk, drop, double or move one; all checksums are right."""
    chunks = _png_chunks(data)
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    how = rng.random()
    if how < 0.55:
        if kind == b"IDAT" and rng.random() < 0.7:
            content = zlib.compress(mutate_bytes(zlib.decompress(content), rng))
        else:
            content = mutate_bytes(content, rng)
        chunks[index] = (kind, content)
    elif how < 0.7:
        del chunks[index]
    elif how < 0.85:
        chunks.insert(rng.randrange(len(chunks) + 1), (kind, content))
    else:
        other = rng.choice((b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"tEXt"))
        chunks.insert(rng.randrange(1, len(chunks)), (other, rng.randbytes(rng.randint(0, 40))))
    return PNG_START + b"".join(map(_png_chunk, chunks))


def mutate_tiff_entry(data: bytes, rng: Random) -> bytes:
    """Change a field of one entry of the first directory: its tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(f"{order}H", data, 2)[0] != 42:  # BigTIFF
        return mutate_bytes(data, rng)
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    changed = bytearray(data)
    entry = place + 2 + _TIFF_ENTRY_BYTES * rng.randrange(count)
    field = rng.random()
    value = rng.choice(
        (0, 1, 2, 3, 4, 5, 8, 16, 32, 255, 257, 4096, 65535, 2**20, 2**31, 2**32 - 1)
    )
    if field < 0.6:
        short = struct.unpack_from(f"{order}H", data, entry + 2)[0] == 3
        new = (
            struct.pack(f"{order}HH", value % 65536, 0)
            if short
            else struct.pack(f"{order}I", value)
        )
        changed[entry + 8 : entry + 12] = new
    elif field < 0.8:
        struct.pack_into(f"{order}I", changed, entry + 4, value)
    elif field < 0.9:
        struct.pack_into(f"{order}H", changed, entry + 2, rng.randrange(20))
    else:
        struct.pack_into(f"{order}H", changed, entry, rng.randrange(254, 350))
    return bytes(changed)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(PNG_START)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png_chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, content = chunk
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
