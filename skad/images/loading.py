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
_JUNK = bytes(range(1, 65))  # between a scan and a marker, it is skipped


def load(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[Image.Image, str]:
    """Decode an opened image of a file.

    Returns the image, and what is wrong with it: "" where it is whole. Of one that is
    not whole, the missing pixels are black or gray.
    """
    if image.format == "JPEG":
        found, lack = _load_jpeg(file)
    elif image.format == "PNG":
        found, lack = _load_png(file)
    else:
        found, lack = image, _pixels_of(image)
    if lack and found.getbbox() is None:
        raise UnreadableError(lack)
    return found, lack


def _pixels_of(image: ImageFile.ImageFile) -> str:
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
    """Decode a JPEG file, of which the header of the first scan has been read.

    Where an end marker follows too early, libjpeg makes up the rest. So it gets one
    scan without its end marker, and stops for more if that is not whole. Several scans,
    as of a progressive image, it shows only at the end marker: bytes before that make a
    difference if they are taken for missing data.
    """
    start = file.tell()
    file.seek(0)
    data = file.read()
    end = data.find(_END, start)
    scans = data if end < 0 else data[:end]
    if end >= 0 and _SCAN in data[start:end]:
        image, other = _jpeg(scans + _END), _jpeg(scans + _JUNK + _END)
        if image.tobytes() == other.tobytes():
            return image, ""
    elif end >= 0:
        with suppress(OSError):
            return _jpeg(scans + _AHEAD), ""
    return _jpeg(scans + _END), _TRUNCATED


def _jpeg(data: bytes) -> Image.Image:
    image = open_image(io.BytesIO(data))
    image.load()
    return image


def _load_png(file: BinaryIO) -> tuple[Image.Image, str]:
    """Decode a PNG file; Pillow is content where its rows are too few.

    So they are decoded over a value: if one of the last two rows (one of them belongs
    to the last pass of an interlaced image) has nothing else, over another one, too.
    """
    lack = ""
    try:
        _open_anew(file).verify()  # checksums
    except (OSError, SyntaxError) as error:
        lack = f"it is truncated or damaged ({error})"
    for filling in (1, 0):
        image = _open_anew(file)
        image.im = Image.new(image.mode, image.size, filling).im
        lack = _pixels_of(image) or lack
        rows = image.crop((0, max(0, image.height - 2), image.width, image.height))
        filled = np.asarray(rows) == np.asarray(Image.new(image.mode, (1, 1), filling))
        if not any(row.all() for row in filled):
            return image, lack
    return image, lack or _TRUNCATED


def _open_anew(file: BinaryIO) -> ImageFile.ImageFile:
    file.seek(0)
    return open_image(file)
