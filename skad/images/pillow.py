"""Decode image files with Pillow: quietly, and only if they are whole."""

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
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, _imaging

# Pillow's names of what photographs come in. Fewer decoders are fewer to be attacked.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL(\.|$)"), 0)

_TRUNCATED = "the image data are truncated: they end before the last pixel"
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers: start of scan, end of image
_AHEAD = bytes(8)  # libjpeg looks so many bytes ahead
_JUNK = bytes(range(1, 65))  # skipped before a marker, decoded amid a scan

_BITS, _INK = 258, 262  # tags of TIFF 6.0


class UnreadableError(ValueError):
    """A file cannot be read as an image, for a reason that is told in words."""


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with their dots."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in (*FORMATS, "MPO"))


def decode(file: BinaryIO, gray: bool) -> NDArray[Any]:
    """Decode a file to upright gray (H, W) or RGB (H, W, 3), without alpha."""
    with _quiet():
        image = _open(file)
        tags = getattr(image, "tag_v2", {})  # of TIFF
        # MPO files of cameras hold previews, too.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise UnreadableError(
                "it has several frames or pages, and one image is wanted; split it "
                "into files, for instance with PIL.ImageSequence"
            )
        if _would_lose_bits(image, tags):
            raise UnreadableError(
                "it has more than 8 bits per channel, and not 16 bits of gray, and "
                "would be cut; save it as 16-bit gray or 8-bit PNG or TIFF, or pass "
                "arrays of uint16"
            )
        array = _to_array(_load(image, file), gray)
    is_inverted = array.dtype == np.uint16 and tags.get(_INK) == 0
    return ~array if is_inverted else array  # Pillow inverts 8 bits only


def size_of(file: BinaryIO) -> tuple[int, int]:
    """Read the (height, width) of a file from its header; nothing is decoded."""
    with _quiet():
        width, height = _open(file).size
    return height, width


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image by its contents; nothing is decoded yet."""
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError(
            f"its contents are not an image of {', '.join(FORMATS)}, or not of a kind "
            "that Pillow reads"
        ) from None


def _would_lose_bits(image: ImageFile.ImageFile, tags: Any) -> bool:
    """Whether Pillow would drop bits of an opened image in silence."""
    if image.mode.startswith(("I;16", "F")):
        return False
    if image.format == "TIFF":
        return max(tags.get(_BITS, (1,))) > 8
    args = image.tile[0][3] if image.tile else ""
    if image.format == "PPM":
        return image.mode == "RGB" and isinstance(args, tuple) and args[-1] > 255
    return image.mode != "I" and ";16" in str(args)


# What it logs reaches the handlers that a user has set, but not the screen by default.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@cache
def _silence_libtiff() -> None:
    """Let the libtiff in Pillow raise errors without printing them, too."""
    with suppress(OSError, AttributeError):  # not to be found on Windows
        libraries = ctypes.CDLL(_imaging.__file__)  # and those that it needs
        libraries.TIFFSetErrorHandler(None)
        libraries.TIFFSetWarningHandler(None)


@contextmanager
def _quiet() -> Iterator[None]:
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


def _load(image: ImageFile.ImageFile, file: BinaryIO) -> Image.Image:
    """Decode an opened image, if it is whole."""
    if image.format == "JPEG":
        return _load_jpeg(file)
    if image.format == "PNG":
        return _load_png(file)
    if image.format == "TIFF":
        boxes = [box for _, box, *_ in image.tile]  # of strips
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in filter(None, boxes))
        if area < image.width * image.height:
            raise UnreadableError(_TRUNCATED)
    image.load()
    return image


def _load_jpeg(file: BinaryIO) -> Image.Image:
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
    if end < 0:
        raise UnreadableError(_TRUNCATED)
    scans = data[:end]
    if _SCAN not in scans[start:]:
        return _jpeg(scans + _AHEAD)
    image = _jpeg(scans + _END)
    if image.tobytes() != _jpeg(scans + _JUNK + _END).tobytes():
        raise UnreadableError(_TRUNCATED)
    return image


def _jpeg(data: bytes) -> Image.Image:
    image = _open(io.BytesIO(data))
    image.load()
    return image


def _load_png(file: BinaryIO) -> Image.Image:
    """Decode a PNG file; Pillow says nothing where there are too few rows.

    So they are decoded over one value, and if one of the last two rows (one of them
    belongs to the last pass of an interlaced image) has this value alone, over another.
    """
    _open(file).verify()  # checksums
    for value in (1, 0):
        image = _open(file)
        image.im = Image.new(image.mode, image.size, value).im
        image.load()
        rows = image.crop((0, max(0, image.height - 2), image.width, image.height))
        is_left = np.asarray(rows) == np.asarray(Image.new(image.mode, (1, 1), value))
        if not any(row.all() for row in is_left):
            return image
    raise UnreadableError(_TRUNCATED)


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
