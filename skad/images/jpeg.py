"""The pixels of a JPEG image, and whether libjpeg had to make up some of them."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from skad.images.formats import UnreadableError

_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_BEHIND_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # restarts are within one
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames that libjpeg decodes piece by piece
_EOI = b"\xff\xd9"
# libjpeg looks up to 8 bytes ahead. Beyond these a scan that is complete takes one byte
# at a time for junk; one that is not collects at least 6 before it goes on.
_AHEAD, _SINGLE = bytes(8), 4
_MOST_SCANS = 500  # no encoder writes a tenth of that


class Scan(NamedTuple):
    """Where the data of a scan end, and what is known of them."""

    end: int
    is_short: bool  # by the count of its restart markers


class Layout(NamedTuple):
    """What the markers of a JPEG file say."""

    frame: int  # the code of its start of frame
    scans: list[Scan]
    end: int | None  # behind the end marker; None where there is none
    lacks_scans: bool  # of a progressive image


def load_jpeg(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Decode an opened JPEG image; tell whether it is whole.

    Parameters
    ----------
    image : PIL.ImageFile.ImageFile
        Opened and not loaded; it has its pixels afterwards, gray where data lack.
    data : bytes
        The file.

    Returns
    -------
    is_whole : bool

    Raises
    ------
    OSError
        If libjpeg cannot decode it.
    """
    layout = read_layout(data)
    if layout.frame not in _HUFFMAN:
        image.load()
        return True
    codec, extents, _, args = image.tile[0]
    decoder = Image._getdecoder(image.mode, codec, args, image.decoderconfig)
    try:
        image.load_prepare()
        decoder.setimage(image.im, extents)
        whole = _feed(decoder, data, layout)
    finally:
        decoder.cleanup()
    image.tile = []
    return whole


def _feed(decoder: Any, data: bytes, layout: Layout) -> bool:
    """Decode scan after scan, and look behind each whether it wants more."""
    left, code, done = b"", 0, False

    def decode(more: bytes) -> bool:
        nonlocal left, code, done
        if not done:  # when all rows are there, for one scan before its end marker
            n, code = decoder.decode(left + more)
            done = n < 0
            left = b"" if done else (left + more)[n:]
        return bool(left)

    whole = not layout.lacks_scans
    start = 0
    for scan in layout.scans:
        decode(data[start : scan.end])
        decode(_AHEAD)
        wants_more = max([decode(b"\0") for _ in range(_SINGLE)])
        whole = whole and not wants_more and not scan.is_short
        start = scan.end
    whole = whole and layout.end is not None
    decode(data[start : layout.end] if layout.end else data[start:] + _EOI)
    if code < 0:
        raise ImageFile._get_oserror(code, encoder=False)
    return whole and done


def read_layout(data: bytes) -> Layout:
    """Find frame and scans of a file; `ValueError` where they make no sense."""
    frame, scans, interval = 0, [], 0
    sides = (0, 0)
    factors: dict[int, tuple[int, int]] = {}  # by component: horizontal, vertical
    bits: dict[int, NDArray] = {}  # by component: of 64 coefficients, those missing
    end = None
    for code, start, stop, behind in _segments(data):
        if code == 0xD9:
            end = stop
        elif code == 0xDD:
            interval = int.from_bytes(data[start : start + 2], "big")
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            frame = code
            height, width = (data[start + i : start + i + 2] for i in (1, 3))
            sides = int.from_bytes(width, "big"), int.from_bytes(height, "big")
            for i in range(start + 6, stop - 2, 3):
                factors[data[i]] = data[i + 1] >> 4, data[i + 1] & 15
                bits[data[i]] = np.full(64, -1)
        elif code == 0xDA:
            names = data[start + 1 : start + 1 + 2 * data[start] : 2]
            if not names or not factors.keys() >= set(names) or len(data) < stop:
                raise UnreadableError("a scan in it has no frame, or is cut off")
            first, last, low = data[stop - 3], data[stop - 2], data[stop - 1] & 15
            for name in names:
                bits[name][first : last + 1] = low
            restarts = len(_RESTART.findall(data, stop, behind)) if interval else 0
            wanted = _count_mcus(sides, factors, names) / interval if interval else 0
            scans.append(Scan(behind, restarts < wanted - 1))
            if len(scans) > _MOST_SCANS:
                raise UnreadableError(f"it has more than {_MOST_SCANS} JPEG scans")
    lacks = frame == 0xC2 and _lacks_scans(list(bits.values()))
    return Layout(frame, scans, end, lacks)


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each marker: start and end of what it says, and end of the scan behind."""
    place = 2
    while (match := _MARKER.search(data, place)) is not None:
        code, start = match[1][0], match.end()
        place = start
        if code == 0xD9:
            yield code, start, start, start
            return
        if code not in _ALONE:
            place += max(2, int.from_bytes(data[start : start + 2], "big"))
            behind = _end_of_scan(data, place) if code == 0xDA else place
            yield code, start + 2, place, behind
            place = behind


def _end_of_scan(data: bytes, place: int) -> int:
    match = _BEHIND_SCAN.search(data, place)
    end = len(data) if match is None else match.start()
    while end > place and data[end - 1] == 0xFF:  # fills up before a marker
        end -= 1
    return end


def _count_mcus(
    sides: tuple[int, int], factors: dict[int, tuple[int, int]], names: bytes
) -> int:
    """Count the units of a scan between which restart markers may stand."""
    most = [max(factor[i] for factor in factors.values()) for i in (0, 1)]
    counts = []
    for i, side in enumerate(sides):
        if len(names) > 1:
            counts.append(-(-side // (8 * most[i])))
        else:
            own = -(-side * factors[names[0]][i] // most[i])
            counts.append(-(-own // 8))
    return counts[0] * counts[1]


def _lacks_scans(missing: list[NDArray]) -> bool:
    """Tell whether a progressive image was cut between its scans.

    A component whose AC coefficients are all 0 may go without them, but not the first,
    which is the brightness.
    """
    begun = any((bits > 0).any() or bits[0] != 0 for bits in missing)
    return begun or not missing or bool((missing[0] < 0).any())
