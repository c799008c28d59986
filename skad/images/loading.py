"""Decode an opened image, and find what its decoder would leave out in silence."""

import io
from contextlib import suppress
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from skad.images.formats import UnreadableError, open_image

_TRUNCATED = "the image data are truncated: they end before the last pixel"
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers: start of scan, end of image
_AHEAD = bytes(8)  # libjpeg looks so many bytes ahead
_JUNK = bytes(range(1, 65))  # skipped before a marker, decoded amid a scan


def load(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[Image.Image, str]:
    """Decode an opened image; also say what is wrong with it, "" if it is whole."""
    if image.format == "JPEG":
        found, damage = _load_jpeg(file)
    elif image.format == "PNG":
        found, damage = _load_png(file)
    else:
        found, damage = image, _load_rows(image)
    if damage and found.getbbox() is None:  # nothing but black
        raise UnreadableError(damage)
    return found, damage


def _load_rows(image: ImageFile.ImageFile) -> str:
    """Decode; after an error, keep the pixels before it and say what went wrong."""
    try:
        image.load()
    except OSError as error:
        if image._im is None:
            raise
        image.tile = []  # what cannot be decoded
        return f"the image data are truncated or damaged ({error})"
    return ""


def _load_jpeg(file: BinaryIO) -> tuple[Image.Image, str]:
    """Decode a JPEG file of which the header of the first scan has been read.

    Where an end marker comes too early, libjpeg makes up the rest. So it gets one scan
    without its end marker, and asks for more if that is not whole. Several scans, as of
    a progressive image, it needs with the marker: whole ones look the same with junk
    before it.
    """
    start = file.tell()
    file.seek(0)
    data = file.read()
    end = data.find(_END, start)
    scans = data[:end] if end > 0 else data
    if end > 0 and _SCAN in scans[start:]:
        image, other = _jpeg(scans + _END), _jpeg(scans + _JUNK + _END)
        if image.tobytes() == other.tobytes():
            return image, ""
    elif end > 0:
        with suppress(OSError):
            return _jpeg(scans + _AHEAD), ""
    return _jpeg(scans + _END), _TRUNCATED


def _jpeg(data: bytes) -> Image.Image:
    image = open_image(io.BytesIO(data))
    image.load()
    return image


def _load_png(file: BinaryIO) -> tuple[Image.Image, str]:
    """Decode a PNG file; Pillow says nothing where there are too few rows.

    So they are decoded over one value, and if one of the last two rows (one of them
    belongs to the last pass of an interlaced image) has this value alone, over another.
    """
    damage = ""
    file.seek(0)
    try:
        open_image(file).verify()  # checksums
    except (OSError, SyntaxError) as error:
        damage = f"it is truncated or damaged ({error})"
    for value in (1, 0):
        file.seek(0)
        image = open_image(file)
        image.im = Image.new(image.mode, image.size, value).im
        damage = _load_rows(image) or damage
        rows = image.crop((0, max(0, image.height - 2), image.width, image.height))
        is_left = np.asarray(rows) == np.asarray(Image.new(image.mode, (1, 1), value))
        if not any(row.all() for row in is_left):
            return image, damage
    return image, damage or _TRUNCATED
