"""Which formats are read, which plug-in opens a file, and what is refused of it."""

import ctypes
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from logging import Filter, LogRecord, getLogger
from pathlib import Path
from threading import local
from typing import Any, BinaryIO, cast

from PIL import Image, ImageFile, _imaging

from skad.common.checks import MAX_PIXELS

# Formats of Pillow's that are no photographs: documents, vectors, movies, icons, and
# data of measurements, of which Pillow reads signed numbers as if they had no sign.
_NO_PHOTOGRAPHS = frozenset(
    "BUFR CUR EPS FITS FLI GRIB HDF5 ICNS ICO IPTC MIC MPEG PDF PSD WMF".split()
)
_DEEP = re.compile(r"^(?!BGR).*;16[BLN]?$")  # raw modes; "BGR;16" has 5 to 6 bits
_CHATTER = re.compile(r"PIL(\.|$)|tifffile")
_IGNORED = ("ignore", None, Warning, _CHATTER, 0)
_thread = local()

MOST_COUNTED = 1000  # frames or pages of a file
MAX_BYTES = 2**31  # of a file that is read as a whole: 8 a pixel at MAX_PIXELS


class UnreadableError(ValueError):
    """A file cannot be read as an image, for a reason that is told in words."""


@cache
def formats() -> dict[str, frozenset[str]]:
    """Return the formats that are read: Pillow's names, and the files' suffixes."""
    Image.init()
    suffixes: dict[str, set[str]] = {}
    for suffix, name in Image.registered_extensions().items():
        name = "JPEG" if name == "MPO" else name  # which opens both
        if name in Image.OPEN and name not in _NO_PHOTOGRAPHS:
            suffixes.setdefault(name, set()).add(suffix)
    return {name: frozenset(suffixes[name]) for name in Image.ID if name in suffixes}


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case and with their dots."""
    return frozenset().union(*formats().values())


def find_plug_in(start: bytes, path: Path) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    """Find what opens a file, by its contents.

    Not `PIL.Image.open`: it warns or raises at a size that only the global
    ``Image.MAX_IMAGE_PIXELS`` could move, and tries formats that are not wanted.

    Parameters
    ----------
    start : bytes
        What the file begins with, 16 bytes.
    path : pathlib.Path
        Formats that have no magic number are known by the suffix alone.

    Returns
    -------
    plug_in : callable
        Takes an opened file, and returns an image of which nothing is decoded.

    Raises
    ------
    ValueError
        If its contents are of no format that is read.
    """
    for name, own in formats().items():
        factory, accept = Image.OPEN[name]
        known = accept(start.ljust(16, b"\0")) if accept else path.suffix.lower() in own
        if isinstance(known, str):  # a format that Pillow was built without
            raise UnreadableError(known)
        if known:
            return partial(_call, factory)
    raise UnreadableError(
        "its contents are not an image of a format that is read; these are "
        f"{', '.join(sorted(formats()))}"
    )


def _call(factory: Any, file: BinaryIO) -> ImageFile.ImageFile:
    return factory(file, "")


def check_claim(width: int, height: int) -> None:
    """Refuse a size that no image has, before anything is made of that size."""
    if not 0 < width * height <= MAX_PIXELS:
        raise UnreadableError(
            f"its header claims {width} x {height} pixels (width x height); allowed "
            f"are 1 to {MAX_PIXELS} pixels"
        )


def check_depth(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse an opened image of which Pillow would drop bits silently."""
    deep = image.mode in ("RGB", "RGBA", "L", "LA") and any(
        _is_deep(codec, args if isinstance(args, tuple) else (args,))
        for codec, _, _, args in image.tile
    )
    if image.format == "AVIF":
        deep = _is_deep_avif(data)
    elif image.format == "JPEG2000" and image.mode != "I;16":
        deep = _is_deep_jpeg2000(data)
    elif image.mode == "I" and image.format not in ("PPM", "PNG"):  # these: 16 bits
        raise UnreadableError(
            f"a {image.format} image of 32-bit integers is not supported; save it as "
            "16-bit TIFF or float32 TIFF"
        )
    if deep:
        refuse_depth(image.format or "")


def refuse_depth(name: str) -> None:
    """Say that more than 8 bits of a format cannot be kept."""
    raise UnreadableError(
        f"this {name} image has more than 8 bits per channel and would be cut to 8 "
        "bits; save it as 16-bit TIFF, 16-bit gray PNG or 8-bit PNG"
    )


def _is_deep(codec: str, args: tuple[object, ...]) -> bool:
    if codec in ("ppm", "ppm_plain"):
        return isinstance(args[-1], int) and args[-1] > 255
    raw = any(isinstance(arg, str) and _DEEP.match(arg) for arg in args)
    return raw or codec == "SGI16" or (codec == "bcn" and args[0] == 6)


def _is_deep_avif(data: bytes) -> bool:
    """Whether a codec configuration, AV1-ISOBMFF 2.3.3, says 10 or 12 bits."""
    flags = re.findall(rb"av1C\x81.(.)", data, re.DOTALL)
    return any(byte[0] & 0x40 for byte in flags)


def _is_deep_jpeg2000(data: bytes) -> bool:
    """Whether a component has more than 8 bits, ITU-T T.800, A.5.1."""
    start = data.find(b"\xff\x4f\xff\x51") + 4
    count = int.from_bytes(data[start + 36 : start + 38], "big")
    depths = data[start + 38 : start + 38 + 3 * count : 3]
    return any(depth & 127 > 7 for depth in depths)


def check_one_picture(image: ImageFile.ImageFile) -> None:
    """Refuse an opened image with further frames, unless these are previews."""
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format == "MPO":
        count = _count_mpo(image, count)
    refuse_several(count, "frames")


def refuse_several(count: int, kind: str) -> None:
    """Refuse a file of more than one frame or page."""
    if count > 1:
        more = " or more" if count == MOST_COUNTED else ""
        raise UnreadableError(
            f"it has {count} {kind}{more}, and one image is wanted; split it into "
            f"files of one of its {kind} each, for instance with PIL.ImageSequence"
        )


def _count_mpo(image: ImageFile.ImageFile, count: int) -> int:
    """Count the pictures of an MPO file that are not smaller views of the first."""
    size, pictures = image.size, 1
    entries = getattr(image, "mpinfo", {}).get(0xB002, [])
    for i, entry in enumerate(entries[1:count], 1):
        kind = str(entry["Attribute"]["MPType"])
        image.seek(i)
        pictures += kind.startswith("Multi-Frame") or image.size == size
    image.seek(0)
    return pictures


class _Quiet(Filter):
    """Drops what a library logs in a thread while this decodes for skad."""

    def filter(self, record: LogRecord) -> bool:
        return not getattr(_thread, "is_quiet", False)


for _name in ("PIL.TiffImagePlugin", "PIL.PngImagePlugin", "tifffile"):
    getLogger(_name).addFilter(_Quiet())


@cache
def _silence_libtiff() -> None:
    """Let libtiff, which Pillow decodes with, no longer print to the error stream.

    It raises all the same. Where it is built into Pillow, as on Windows, its functions
    cannot be found.
    """
    with suppress(OSError, AttributeError):
        libraries = ctypes.CDLL(_imaging.__file__)  # and those that it needs
        libraries.TIFFSetErrorHandler(None)
        libraries.TIFFSetWarningHandler(None)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log messages of decoders from the screen.

    `warnings.catch_warnings` is not for threads: it sets all filters back, so that
    another thread may lose its own.
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
