"""Resize images as they are read, and frames in memory in the same way."""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from skad.common.checks import check_size, refuse_mask

Size = tuple[int, int]  # (height, width), pixels

_DTYPES = (np.uint8, np.uint16, np.float32)  # of all that is read
_REDUCING_GAP = 3.0  # quicker, and "almost indistinguishable" (Pillow's manual)


def check_bool(name: str, value: Any) -> bool:
    """Return a flag as a Python bool."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def resize_image(image: ArrayLike, image_size: int | Size) -> NDArray[Any]:
    """Resize an image in memory, as `read_image` resizes one that it reads.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, 3)
        uint8, uint16 or float32.
    image_size : int or (height, width)
        An int means a square.

    Returns
    -------
    ndarray of shape image_size or ``(*image_size, 3)``, of the same dtype

    Raises
    ------
    ValueError
        If `image` has another shape or dtype, or `image_size` is none.

    Examples
    --------
    >>> frame = np.arange(12, dtype=np.uint8).reshape(2, 6)
    >>> resize_image(frame, (1, 3))
    array([[4, 6, 7]], dtype=uint8)
    """
    refuse_mask(image, "image")
    array = np.array(image)  # a copy: a camera may use its frame again
    dtype = array.dtype.newbyteorder("=")
    has_size = array.size and array.ndim > 1 and array.shape[2:] in ((), (3,))
    if dtype not in _DTYPES or not has_size or getattr(image, "mode", "")[:1] == "P":
        rule = "image must be (height, width[, 3]) of uint8, uint16 or float32"
        got = f"{type(image).__name__} of {array.dtype} and shape {array.shape}"
        raise ValueError(f"{rule}, and no palette image; got {got}")
    size = check_size("image_size", image_size)
    return resize(np.ascontiguousarray(array, dtype), size)


def resize(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize (H, W[, C]) by a triangle filter that widens; floats become float32."""
    if array.shape[:2] == size:
        return array
    if array.dtype == np.uint8 and array.shape[2:] in ((), (3,)):
        return _resize_plane(array, size)
    if array.ndim == 3:
        planes = map(np.ascontiguousarray, np.moveaxis(array, -1, 0))
        return np.stack([resize(p, size) for p in planes], axis=-1)  # (H, W, C)
    resized = _resize_plane(array.astype(np.float32), size)
    return resized if array.dtype.kind == "f" else np.rint(resized).astype(array.dtype)


def _resize_plane(plane: NDArray[Any], size: Size) -> NDArray[Any]:
    image = Image.fromarray(plane)
    bilinear = Image.Resampling.BILINEAR
    return np.array(image.resize(size[::-1], bilinear, reducing_gap=_REDUCING_GAP))


def max_pool(amap: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Resize a map (h, w): a pixel has the largest value of those that it overlaps."""
    for axis, n_new in enumerate(size):
        n, places = amap.shape[axis], np.arange(n_new)
        first = places * n // n_new
        last = -(-(places + 1) * n // n_new) - 1
        overlapped = [
            amap.take(np.minimum(first + k, last), axis)
            for k in range(int((last - first).max()) + 1)
        ]
        amap = reduce(np.maximum, overlapped)
    return amap
