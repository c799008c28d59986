"""What of a PNG file is needed for its pixels, checked."""

import zlib
from typing import NamedTuple

from skad.images.formats import UnreadableError, refuse_depth

START = b"\x89PNG\r\n\x1a\n"
# Bit depth and colour type, PNG 11.2.2
_SIXTEEN, _GRAY = memoryview(b"\x10"), memoryview(b"\0")


class Png(NamedTuple):
    """A PNG file without what has nothing to do with its pixels."""

    data: bytes
    frames: int  # more than 1 in an animation


def tidy_png(data: bytes) -> Png:
    """Take the chunks that make the pixels of a PNG file.

    So text and profiles, which may be bombs or broken, are not looked into.

    Parameters
    ----------
    data : bytes
        The file; it may be cut off.

    Returns
    -------
    png : Png
        The critical chunks, and the orientation where its chunk is sound.

    Raises
    ------
    ValueError
        If a checksum is wrong, or it has 16 bits and more than gray.
    """
    view, place = memoryview(data), len(START)
    kept: list[bytes | memoryview] = [START]
    pixels: list[memoryview] = []  # in one chunk afterwards
    frames = 1
    while len(start := data[place : place + 8]) == 8:
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        body = view[place + 8 : place + 8 + length]
        check = data[place + 8 + length : place + 12 + length]
        is_sound = zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(check, "big")
        if kind in (b"IHDR", b"PLTE", b"IDAT") and len(check) == 4 and not is_sound:
            raise UnreadableError(f"it is damaged: checksum of a chunk {kind.decode()}")
        if kind == b"IHDR" and body[8:9] == _SIXTEEN and body[9:10] != _GRAY:
            refuse_depth("16-bit PNG")
        if kind in (b"IHDR", b"PLTE") or (kind == b"eXIf" and is_sound):
            kept.append(view[place : place + 12 + length])
        elif kind == b"IDAT":
            pixels.append(body)
        elif kind == b"acTL" and is_sound:
            frames = max(frames, int.from_bytes(body[:4], "big"))
        elif kind == b"IEND":
            break
        place += 12 + length
    joined = b"".join(pixels)
    kept += [_chunk(b"IDAT", joined), _chunk(b"IEND", b"")]
    return Png(b"".join(kept), frames)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + bytes(4)  # is checked already
