"""Decode image files with Pillow: quietly, within bounds, only if they are whole."""

import ctypes
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, _imaging

from skad.common.checks import MAX_PIXELS

# Pillow's names of what photographs come in. Fewer decoders are fewer to be attacked.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL(\.|$)|tifffile"), 0)
_HEADER = 4096  # bytes that hold the headers of JPEG 2000 and AVIF

_TRUNCATED = "the image data are truncated: they end before the last pixel"
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers: start of scan, end of image
_AHEAD = bytes(8)  # libjpeg looks so many bytes ahead
_JUNK = bytes(range(1, 65))  # skipped before a marker, decoded amid a scan


class UnreadableError(ValueError):
    """A file cannot be read as an image, for a reason that is told in words."""


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with their dots."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in (*FORMATS, "MPO"))


def decode(file: BinaryIO, gray: bool) -> tuple[NDArray[Any], str]:
    """Decode a file that is not TIFF; also say what is missing of it, mostly ""."""
    header = file.read(_HEADER)
    with open_image(file) as image:
        if _is_deep(image, header):
            raise UnreadableError(
                f"this {image.format} image has more than 8 bits per channel and would "
                "be cut to 8 bits; save it as 16-bit TIFF, 16-bit gray PNG or 8-bit PNG"
            )
        if image.format != "MPO":  # whose further pictures are mostly previews
            check_single(getattr(image, "n_frames", 1), "frames")
        return load(image, file, gray)


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image by its contents; nothing is decoded yet.

    `PIL.Image.open` warns or raises at a size that only a global constant could move.
    """
    Image.init()
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and accept and accept(start) is True:
            image = factory(file, "")
            check_pixels(*image.size)
            return image
    raise UnreadableError(f"its contents are not an image of {', '.join(FORMATS)}")


def check_pixels(width: int, height: int) -> None:
    """Refuse a size that no image has, before anything is made of that size."""
    if not 0 < width * height <= MAX_PIXELS:
        raise UnreadableError(
            f"its header claims {width} x {height} pixels (width x height); allowed "
            f"are 1 to {MAX_PIXELS} pixels"
        )


def check_single(count: int, what: str) -> None:
    """Refuse a file of more than one frame or page."""
    if count > 1:
        raise UnreadableError(
            f"it has {count} {what}, and one image is wanted; split it into files, for "
            "instance with PIL.ImageSequence"
        )


# What they log reaches the handlers that a user has set, but not the screen by default.
for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


@cache
def _silence_libtiff() -> None:
    """Let the libtiff in Pillow raise errors without printing them, too."""
    with suppress(OSError, AttributeError):  # not to be found on Windows
        libraries = ctypes.CDLL(_imaging.__file__)  # and those that it needs
        libraries.TIFFSetErrorHandler(None)
        libraries.TIFFSetWarningHandler(None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of decoders from the screen.

    `warnings.catch_warnings` would set back the filters of other threads, too.
    """
    _silence_libtiff()
    filters = cast("list[object]", warnings.filters)
    filters.insert(0, _IGNORED)
    try:
        yield
    finally:
        with suppress(ValueError):  # another thread has set the filters back
            filters.remove(_IGNORED)


def _is_deep(image: ImageFile.ImageFile, header: bytes) -> bool:
    """Whether Pillow would drop bits of an opened image in silence."""
    args = image.tile[0][3] if image.tile else ""
    if image.format == "PNG":
        return ";16" in str(args) and not image.mode.startswith("I")
    if image.format == "PPM":
        return image.mode == "RGB" and isinstance(args, tuple) and args[-1] > 255
    if image.format == "JPEG2000":  # ITU-T T.800, A.5.1: bits less 1
        place = header.find(b"\xff\x4f\xff\x51") + 42
        return image.mode != "I;16" and header[place : place + 1] > b"\x07"
    # AVIF with 10 or 12 bits: AV1-ISOBMFF 2.3.3
    return re.search(rb"av1C\x81.[\x40-\x7f\xc0-\xff]", header, re.DOTALL) is not None


def load(
    image: ImageFile.ImageFile, file: BinaryIO, gray: bool
) -> tuple[NDArray[Any], str]:
    """Decode an opened image to an array; also say what is missing of it."""
    if image.format == "JPEG":
        loaded, damage = _load_jpeg(file)
    elif image.format == "PNG":
        loaded, damage = _load_png(file)
    else:
        loaded, damage = image, _load_rows(image)
    if damage and loaded.getbbox() is None:  # nothing but black
        raise UnreadableError(damage)
    return _to_array(loaded, gray), damage


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
    try:
        open_image(file).verify()  # checksums
    except (OSError, SyntaxError) as error:
        damage = f"it is truncated or damaged ({error})"
    for value in (1, 0):
        image = open_image(file)
        image.im = Image.new(image.mode, image.size, value).im
        damage = _load_rows(image) or damage
        rows = image.crop((0, max(0, image.height - 2), image.width, image.height))
        is_left = np.asarray(rows) == np.asarray(Image.new(image.mode, (1, 1), value))
        if not any(row.all() for row in is_left):
            return image, damage
    return image, damage or _TRUNCATED


def _to_array(image: Image.Image, gray: bool) -> NDArray[Any]:
    """Turn a decoded image upright, without alpha or palette, into an array."""
    with suppress(Exception):  # whatever Pillow stumbles over in a broken EXIF block
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # "I;16"; "I" in PPM files
        return np.array(image).astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    image.info.pop("transparency", None)  # or conversion would warn about it
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    colour = image.convert("RGB")
    return np.array(colour.convert("L") if gray else colour)
