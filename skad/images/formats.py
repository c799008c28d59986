"""Which image formats are read, and how decoders are kept quiet."""

import ctypes
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from re import compile as pattern
from threading import local
from typing import BinaryIO, cast

from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

# Pillow's names of what photographs come in; one may be missing where Pillow is built
# without it. Fewer decoders are fewer places for hostile files to attack.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")_TOO_LARGE = (
    "its header claims more pixels than are allowed, which are twice "
    "PIL.Image.MAX_IMAGE_PIXELS"
)

_IGNORED = ("ignore", None, Warning, pattern(r"PIL(\.|$)|tifffile"), 0)
_thread = local()


class UnreadableError(ValueError):
    """A file cannot be read as an image, for a reason that is told in words."""


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with their dots."""
    read = {*formats(), "MPO"}  # a kind of JPEG
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in read)


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image by its contents, whatever its name; nothing is decoded yet."""
    try:
        return Image.open(file, formats=formats())
    except UnidentifiedImageError:
        raise UnreadableError(
            "its contents are not an image of a format that is read, or are damaged at "
            f"the start; the formats are {', '.join(formats())}"
        ) from None
    except Image.DecompressionBombError:
        raise UnreadableError(_TOO_LARGE) from None


def check_pixels(width: int, height: int) -> None:
    """Refuse a size as Pillow does, before anything is made of that size."""
    limit = Image.MAX_IMAGE_PIXELS
    if width * height < 1 or (limit and width * height > 2 * limit):
        raise UnreadableError(_TOO_LARGE)


def check_single(count: int, what: str) -> None:
    """Refuse a file of more than one frame or page."""
    if count > 1:
        raise UnreadableError(
            f"it has {count} {what}, and one image is wanted; split it into files of "
            f"one of its {what} each, for instance with PIL.ImageSequence"
        )


def _is_outside(record: logging.LogRecord) -> bool:
    """Pass what a library logs while it does not decode for skad."""
    return not getattr(_thread, "is_quiet", False)


for _name in ("PIL.TiffImagePlugin", "tifffile"):
    logging.getLogger(_name).addFilter(_is_outside)


@cache
def _silence_libtiff() -> None:
    """Let the libtiff of Pillow raise errors without printing them, too.

    Where it is built into Pillow, as on Windows, its functions cannot be found.
    """
    with suppress(OSError, AttributeError):
        libraries = ctypes.CDLL(_imaging.__file__)  # and those that it needs
        libraries.TIFFSetErrorHandler(None)
        libraries.TIFFSetWarningHandler(None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log messages of decoders from the screen.

    `warnings.catch_warnings` sets all filters back, also those of other threads.
    """
    _silence_libtiff()
    filters = cast("list[object]", warnings.filters)
    filters.insert(0, _IGNORED)
    _thread.is_quiet = True
    try:
        yield
    finally:
        _thread.is_quiet = False
        with suppress(ValueError):  # another thread has set the filters back
            filters.remove(_IGNORED)
