"""TIFF files: their only page, and pages that Pillow would cut to 8 bits."""

import math
import os
import zlib
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from skad.images.formats import UnreadableError, check_pixels, check_single

_DTYPES = {  # in the file: as read
    "uint8": np.uint8,
    "uint16": np.uint16,
    "float16": np.float32,
    "float32": np.float32,
    "float64": np.float32,
}
_PLAIN, _DEFLATE = 1, (8, 32946)  # TIFF compression codes
_MOST_COUNTED = 1000  # pages of a file


def only_page(tiff: Any, file: BinaryIO) -> Any:
    """Return the only page of an opened `tifffile.TiffFile`; refuse a broken one."""
    page = tiff.pages.first
    check_pixels(page.imagewidth, page.imagelength)
    if page.is_tiled:
        check_pixels(page.tilewidth, page.tilelength)
    if page.is_reduced:
        raise UnreadableError(
            "its first page is a preview of another image, as in a camera's raw file; "
            "convert it to TIFF or PNG"
        )
    pages = islice(tiff.pages, _MOST_COUNTED)
    count = sum(not (page.is_reduced or page.is_mask) for page in pages)
    if tiff.is_imagej:  # may count images that have no page
        count = max(count, (tiff.imagej_metadata or {}).get("images", 1))
    check_single(count, "pages")
    end = os.fstat(file.fileno()).st_size
    sizes = page.databytecounts
    segments = zip(page.dataoffsets, sizes, strict=True)  # strips or tiles
    is_whole = (
        len(sizes) >= math.prod(page.chunked)
        and all(size > 0 and offset + size <= end for offset, size in segments)
        and (page.compression != _PLAIN or sum(sizes) >= page.nbytes)
    )
    if not is_whole:
        raise UnreadableError("the image data are truncated: strips or tiles are gone")
    return page


def suits_pillow(page: Any) -> bool:
    """Whether Pillow keeps all bits of a page; it has more decompressors."""
    dtype = str(page.dtype)
    return dtype in ("bool", "uint8") or (dtype, page.samplesperpixel) == ("uint16", 1)


def is_inverted(page: Any) -> bool:
    """Whether 0 is white."""
    return getattr(page.photometric, "name", "") == "MINISWHITE"


def decode_page(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode deep colour and floating-point numbers.

    Returns an upright array (height, width) or (height, width, 3) of uint8, uint16 or
    float32.
    """
    dtype, channels = str(page.dtype), page.samplesperpixel
    ink = getattr(page.photometric, "name", page.photometric)
    if (
        dtype not in _DTYPES
        or page.axes not in ("YX", "YXS", "SYX")
        or ink not in ("RGB", "MINISBLACK")
        or channels > 4
    ):
        raise UnreadableError(
            f"a TIFF page of {channels} channel(s) of {dtype}, {ink}, with axes "
            f"{page.axes}, is not supported; save it as uint8, uint16 or float32, gray "
            "(MINISBLACK) or RGB"
        )
    array = _decode_segments(page, file)
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array  # (H, W[, C])
    if array.ndim == 3:  # gray + alpha has two channels, RGB + alpha four
        array = array[..., 0] if channels < 3 else array[..., :3]
    with np.errstate(over="ignore"):  # infinite then, and refused as such
        array = array.astype(_DTYPES[dtype])
    return _orient(array, page.tags.valueof("Orientation", 1))


def _decode_segments(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode; deflated strips and tiles one by one, none beyond its size.

    tifffile would unpack a bomb to whatever length it has.
    """
    if page.compression == _PLAIN:
        return page.asarray()
    if page.compression not in _DEFLATE:
        if find_spec("imagecodecs") is None:
            name = getattr(page.compression, "name", page.compression)
            raise UnreadableError(
                f"{page.dtype} TIFF compressed by {name} needs the package "
                "imagecodecs; install it, or save it uncompressed or deflated"
            )
        return page.asarray()
    page.compression = _PLAIN  # of what is given to tifffile
    array = np.zeros(page.shaped, page.dtype)  # (planes, depth, H, W, channels)
    for i, offset in enumerate(page.dataoffsets[: math.prod(page.chunked)]):
        size = math.prod(page.decode(None, i)[2]) * array.itemsize
        file.seek(offset)
        packed = file.read(page.databytecounts[i])
        data = zlib.decompressobj().decompress(packed, size)
        segment, (plane, depth, row, column, _), _ = page.decode(data, i)
        part = array[plane, depth:, row:, column:][tuple(map(slice, segment.shape))]
        part[...] = segment[tuple(map(slice, part.shape))]
    return array.reshape(page.shape)


def _orient(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """Undo the orientation of TIFF tag 274 (TIFF 6.0, page 36)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
