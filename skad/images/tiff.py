"""TIFF pages that Pillow would cut to 8 bits or finds too large, decoded in bounds."""

import lzma
import math
import os
import zlib
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from skad.images.formats import (
    MOST_COUNTED,
    UnreadableError,
    check_claim,
    refuse_several,
)
from skad.images.resizing import as_type

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, as Pillow's mode "L"
_DTYPES = {  # in the file: as read
    "uint8": np.uint8,
    "uint16": np.uint16,
    "float16": np.float32,
    "float32": np.float32,
    "float64": np.float32,
}
_PLAIN, _PACKBITS, _LZMA, _DEFLATE = 1, 32773, 34925, (8, 32946)
_LZMA_MEMORY = 2**28  # bytes; xz takes 2**26 at its highest level
_TOO_MUCH = "a strip or tile holds more than its header says"
_LARGE_TILE = 2**24  # pixels; no larger than the image itself beyond that


def check_page(tiff: Any, size: int) -> Any:
    """Return the page of an opened TIFF file that holds its only image.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    size : int
        Of the file, bytes.

    Returns
    -------
    page : tifffile.TiffPage

    Raises
    ------
    ValueError
        If there are several, it is a preview of another, or claims what cannot be.
    """
    page = tiff.pages.first
    check_claim(page.imagewidth, page.imagelength)
    if page.is_reduced:
        raise UnreadableError(
            "its first page is a preview of another image, as in a camera's raw file; "
            "convert it to TIFF or PNG"
        )
    several = (tiff.imagej_metadata or {}).get("images", 1) if tiff.is_imagej else 1
    refuse_several(max(int(several), _count_pages(tiff)), "pages")
    tile = page.tilewidth * page.tilelength
    if tile > max(_LARGE_TILE, page.imagewidth * page.imagelength):
        check_claim(page.tilewidth, page.tilelength)
        raise UnreadableError(
            f"its tiles of {page.tilewidth} x {page.tilelength} pixels are larger than "
            f"its {page.imagewidth} x {page.imagelength} pixels (width x height)"
        )
    offsets, counts = page.dataoffsets, page.databytecounts
    found = sum(
        0 < count and (page.compression == _PLAIN or offset + count <= size)
        for offset, count in zip(offsets, counts, strict=False)
    )
    wanted = _count_segments(page)
    if found < wanted:
        raise UnreadableError(
            f"the image data are truncated: {found} of {wanted} strips or tiles are "
            "there"
        )
    return page


def _count_segments(page: Any) -> int:
    """Count the strips or tiles that make a page."""
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if not page.is_tiled:
        return planes * math.ceil(page.imagelength / (page.rowsperstrip or 1))
    across = math.ceil(page.imagewidth / page.tilewidth)
    down = math.ceil(page.imagelength / page.tilelength)
    return planes * across * down


def _count_pages(tiff: Any) -> int:
    """Count the pages that are no previews and no masks, up to a limit."""
    count = 1
    for i in range(1, MOST_COUNTED):
        try:
            page = tiff.pages[i]
        except IndexError:
            break
        count += not (page.is_reduced or page.is_mask)
    return count


def ink(page: Any) -> str:
    """Name what a page's numbers mean, its photometric interpretation."""
    return getattr(page.photometric, "name", str(page.photometric))


def decode_page(page: Any, file: BinaryIO, gray: bool) -> NDArray[Any]:
    """Decode deep colour, floating point and what is above Pillow's own limit.

    Parameters
    ----------
    page : tifffile.TiffPage
    file : file
        That it belongs to.
    gray : bool
        Convert colour to luminance.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
        uint8, uint16 or float32, upright.

    Raises
    ------
    ValueError
        If it is of a kind that is not supported, or its strips or tiles hold more or
        less than its header says.
    """
    dtype, channels = str(page.dtype), page.samplesperpixel
    if (
        dtype not in _DTYPES
        or page.axes not in ("YX", "YXS", "SYX")
        or ink(page) not in ("RGB", "MINISBLACK")
        or channels > 4
    ):
        raise UnreadableError(
            f"a TIFF page of {channels} channel(s) of {dtype}, {ink(page)}, with axes "
            f"{page.axes}, is not supported; save it as uint8, uint16 or float32, gray "
            "(MINISBLACK) or RGB"
        )
    array = _decode_segments(page, file)
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array  # (H, W[, C])
    if array.ndim == 3:  # gray + alpha has two channels, RGB + alpha four
        array = array[..., 0] if channels < 3 else array[..., :3]
    turn = page.tags.valueof("Orientation", 1)
    with np.errstate(over="ignore"):  # infinite then, and refused as such
        array = orient(array.astype(_DTYPES[dtype]), turn)
    if gray and array.ndim == 3:
        return as_type(array @ np.array(_LUMINANCE), array.dtype)  # (H, W)
    return array


def _decode_segments(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode strip by strip, or tile by tile, none beyond its size."""
    compression = int(page.compression)
    if compression == _PLAIN:
        if page.nbytes > file.seek(0, os.SEEK_END):
            raise UnreadableError("the image data are truncated: the file is too short")
        return page.asarray()
    known = compression in (_PACKBITS, _LZMA, *_DEFLATE)
    if not known and find_spec("imagecodecs") is None:
        name = getattr(page.compression, "name", compression)
        raise UnreadableError(
            f"{page.dtype} TIFF compressed by {name} needs the package imagecodecs; "
            "install it, or save the image uncompressed or deflated"
        )
    if compression in (_LZMA, *_DEFLATE):
        page.compression = _PLAIN  # for tifffile, which may unpack them without bound
    array = np.zeros(page.shaped, page.dtype)  # (planes, depth, H, W, channels)
    row_size = array[0, 0, 0].nbytes
    for i in range(_count_segments(page)):
        _, _, shape = page.decode(None, i)
        size = math.prod(shape) * array.itemsize
        # The last strip may be filled up to the height of the others.
        most = size if page.is_tiled else page.rowsperstrip * row_size
        file.seek(page.dataoffsets[i])
        data = file.read(page.databytecounts[i])
        if compression in (_LZMA, *_DEFLATE):
            data = _unpack(data, compression, min(most, array.nbytes))[:size]
        elif known and len(data) > 2 * most + 1024:  # packing never makes it longer
            raise UnreadableError(_TOO_MUCH)
        segment, (plane, depth, row, column, _), _ = page.decode(data, i)
        part = array[plane, depth:, row:, column:][tuple(map(slice, segment.shape))]
        part[...] = segment[tuple(map(slice, part.shape))]
    return array.reshape(page.shape)


def _unpack(data: bytes, compression: int, most: int) -> bytes:
    """Unpack a strip or tile; refuse it if it gets too long."""
    if compression == _LZMA:
        unpacked = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(
            data, most + 1
        )
    else:
        unpacked = zlib.decompressobj().decompress(data, most + 1)
    if len(unpacked) > most:
        raise UnreadableError(_TOO_MUCH)
    return unpacked


def orient(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """Undo the orientation of TIFF tag 274 (TIFF 6.0, page 36)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
