"""TIFF files: their only page, and pages that Pillow would cut to 8 bits."""

import math
import os
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from skad.images.pillow import (
    UnreadableError,
    check_pixels,
    check_single,
    load,
    open_image,
)
from skad.images.resizing import as_type

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, as Pillow's mode "L"
_DTYPES = {  # in the file: as read
    "uint16": np.uint16,
    **dict.fromkeys(("float16", "float32", "float64"), np.float32),
}
_UNCOMPRESSED = 1  # TIFF tag 259
_MOST_COUNTED = 1000  # pages of a file


def decode(file: BinaryIO, gray: bool) -> tuple[NDArray[Any], str]:
    """Decode a TIFF file; also say what is missing of it, mostly ""."""
    import tifffile  # comes with scikit-image; slow to import

    with tifffile.TiffFile(file) as opened:
        page = _only_page(opened, file)
        if _suits_pillow(page):
            with open_image(file) as image:
                array, damage = load(image, file, gray)
            if page.photometric.name == "MINISWHITE" and array.dtype == np.uint16:
                return ~array, damage  # Pillow inverts 8 bits only
            return array, damage
        array = _decode_page(page)
    if gray and array.ndim == 3:
        array = as_type(array @ np.array(_LUMINANCE), array.dtype)  # (H, W)
    return array, ""


def _only_page(opened: Any, file: BinaryIO) -> Any:
    """Return the only page of a `tifffile.TiffFile`, if it is whole."""
    page = opened.pages.first
    check_pixels(page.imagewidth, page.imagelength)
    if page.is_reduced:
        raise UnreadableError(
            "its first page is a preview of another image, as in a camera's raw file; "
            "convert it to TIFF or PNG"
        )
    pages = islice(opened.pages, _MOST_COUNTED)
    count = sum(not (page.is_reduced or page.is_mask) for page in pages)
    if opened.is_imagej:  # may count images that have no page
        count = max(count, (opened.imagej_metadata or {}).get("images", 1))
    check_single(count, "pages")
    end = os.fstat(file.fileno()).st_size
    strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))  # or tiles
    is_whole = all(size > 0 and offset + size <= end for offset, size in strips)
    if not is_whole or len(strips) < math.prod(page.chunked):
        raise UnreadableError("the image data are truncated: strips or tiles are gone")
    return page


def _suits_pillow(page: Any) -> bool:
    """Whether Pillow keeps all bits of a page; it knows more compressions."""
    dtype = str(page.dtype)
    is_gray = page.samplesperpixel == 1
    return dtype in ("bool", "uint8") or (is_gray and dtype in ("uint16", "float32"))


def _decode_page(page: Any) -> NDArray[Any]:
    """Decode deep colour: an upright (H, W) or (H, W, 3) of uint16 or float32.

    Without imagecodecs, tifffile would unpack a bomb to whatever length it has.
    """
    dtype, channels, ink = str(page.dtype), page.samplesperpixel, page.photometric.name
    is_known = dtype in _DTYPES and page.axes in ("YX", "YXS", "SYX") and channels <= 4
    if not is_known or ink not in ("RGB", "MINISBLACK"):
        raise UnreadableError(
            f"TIFF of {channels} channel(s) of {dtype}, {ink}, axes {page.axes} is not "
            "supported; save it as uint8, uint16 or float32, gray or RGB"
        )
    if page.compression != _UNCOMPRESSED and find_spec("imagecodecs") is None:
        raise UnreadableError(
            f"compressed TIFF of {channels} channel(s) of {dtype} needs the package "
            "imagecodecs; install it, or save the image uncompressed"
        )
    array = page.asarray()
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array  # (H, W[, C])
    if array.ndim == 3:  # gray + alpha has two channels, RGB + alpha four
        array = array[..., 0] if channels < 3 else array[..., :3]
    with np.errstate(over="ignore"):  # infinite then, and refused as such
        array = array.astype(_DTYPES[dtype])
    return _upright(array, page.tags.valueof("Orientation", 1))


def _upright(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """Undo the orientation of TIFF tag 274 (TIFF 6.0, page 36)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
