"""Which image formats are read, what opens a file, and how decoders are kept quiet."""

import ctypes
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import BinaryIO, cast

from PIL import Image, ImageFile, _imaging

from skad.common.checks import MAX_PIXELS

# Pillow's names of what photographs come in. Fewer decoders are fewer to be attacked.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL(\.|$)|tifffile"), 0)


class UnreadableError(ValueError):
    """A file cannot be read as an image, for a reason that is told in words."""


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with their dots."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in (*FORMATS, "MPO"))


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image by its contents; nothing is decoded yet.

    `PIL.Image.open` warns or raises at a size that only a global constant could move.
    """
    Image.init()
    start = file.read(16)
    file.seek(0)
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory and accept and accept(start) is True:
            image = factory(file, "")
            check_pixels(*image.size)
            return image
    raise UnreadableError(
        "its contents are not an image of a format that is read; these are "
        f"{', '.join(FORMATS)}"
    )


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
            f"it has {count} {what}, and one image is wanted; split it into files of "
            f"one of its {what} each, for instance with PIL.ImageSequence"
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
