"""Draw heat maps and boxes into images, as arrays.

Imports `common` and `images`.
"""

import io
import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from skad.common.checks import check_whole, refuse_mask
from skad.images.decoding import PathLike, read_image
from skad.images.resizing import Size

__all__ = ["boxes_image", "heat_map_image", "to_rgb_uint8"]

RED = (255, 0, 0)
VERMILION = (213, 94, 0)  # M. Okabe and K. Ito, Color Universal Design, 2008

# Purple, orange, pale yellow: lightness only rises, so that it reads without colour.
_HEAT = np.array(
    [
        np.interp(np.arange(256), (0, 128, 255), levels)
        for levels in ((120, 237, 252), (28, 105, 255), (109, 37, 164))
    ]
).T.astype(np.uint8)  # (256, 3)

_OPACITY = 0.6  # of the heat: the image shows through
_MOST_PIXELS = 2**25  # of a picture; larger files are drawn at a smaller size
_LINES_A_SIDE = 400  # widths of a line that fit along the longer side of a picture
_CAMERA_BITS = (10, 12, 14, 16)  # that cameras store in 16


def to_rgb_uint8(image: ArrayLike) -> NDArray[np.uint8]:
    """Convert an image of any number type to RGB from 0 to 255, for viewing.

    The range of uint8 and uint16 is that of the type; of others, 0 to 1 if all values
    lie in it, else the image's minimum to maximum.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        Three channels are red, green and blue. For any other number of channels, their
        mean is shown in gray.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
        A new array.

    Raises
    ------
    ValueError
        If the image has another shape, or a value is not finite.

    Examples
    --------
    >>> to_rgb_uint8(np.array([[0.0, 0.5, 1.0]]))[0, :, 0]
    array([  0, 128, 255], dtype=uint8)
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or not pixels.size:
        rule = "image must have shape (H, W) or (H, W, C)"
        raise ValueError(f"{rule}; got {pixels.shape}. Of a batch pass images[0].")
    if not np.isfinite(pixels).all():
        raise ValueError("image must hold finite numbers: np.nan_to_num replaces NaN.")
    low, high = _full_range(pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]  # (H, W, 1)
    elif pixels.shape[2] != 3:
        pixels = pixels.mean(axis=2, keepdims=True)  # (H, W, 1)
    if pixels.dtype != np.uint8:
        unit = (pixels.astype(np.result_type(pixels, np.float32)) - low) / (high - low)
        pixels = (255 * unit + 0.5).astype(np.uint8)
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)  # (H, W, 3)


def heat_map_image(
    image: ArrayLike,
    anomaly_map: ArrayLike,
    threshold: float,
    *,
    outline: int = 0,
) -> NDArray[np.uint8]:
    """Overlay heat on an image exactly where its anomaly map exceeds the threshold.

    Colours are on one absolute scale, from the threshold to twice a positive one.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, as :func:`to_rgb_uint8` takes it.
    anomaly_map : array-like of shape (H, W) or (h, w)
        Its anomaly map, higher = more anomalous. A map of another size is resized
        smoothly: peaks above the threshold stay above it, and none is added.
    threshold : float
        Pixels with larger map values are anomalous.
    outline : int, default=0
        Width in pixels of the vermilion line around the heat.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
        The image, unchanged where `anomaly_map <= threshold`, the outline aside.

    Raises
    ------
    ValueError
        If the map is not finite or not (h, w), or a number is out of its range.

    Examples
    --------
    >>> gray = np.full((1, 2), 100, dtype=np.uint8)
    >>> heat_map_image(gray, np.array([[0.5, 1.5]]), threshold=1.0)[0]
    array([[100, 100, 100],
           [181, 102,  62]], dtype=uint8)
    """
    values = as_map(anomaly_map)
    if not (isinstance(threshold, Real) and threshold > -math.inf):
        raise ValueError(f"threshold must be a number > -inf; got {threshold!r}.")
    check_whole("outline", outline, 0)
    rgb = to_rgb_uint8(image)
    if not values.max() > threshold:
        return rgb
    if values.shape != rgb.shape[:2]:
        values = _resized_map(values, rgb.shape[:2], threshold)
    part = _part_around(values > threshold, outline)  # mostly small, and large images
    over, painted = values[part] > threshold, rgb[part]
    scale = 255 / (hottest_value(threshold) - threshold)
    degree = np.clip(scale * (values[part] - threshold), 0, 255).astype(np.uint8)
    heat = Image.fromarray(_HEAT[degree])  # (h, w, 3)
    blend = Image.blend(Image.fromarray(painted), heat, _OPACITY)
    np.copyto(painted, np.asarray(blend), where=over[:, :, np.newaxis])
    if outline:
        painted[_dilated(over, outline) & ~over] = VERMILION
    return rgb


def boxes_image(
    image: ArrayLike, boxes: Iterable[Sequence[int]], *, thickness: int = 2
) -> NDArray[np.uint8]:
    """Outline boxes in red; the lines lie inside the boxes.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, as :func:`to_rgb_uint8` takes it.
    boxes : iterable of (row_min, col_min, row_max, col_max)
        Half-open boxes, as from `skimage.measure.regionprops`. Parts outside the image
        are not drawn.
    thickness : int, default=2
        Width of the lines in pixels, at least 1.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8

    Raises
    ------
    ValueError
        If a box is not four numbers or is empty, or `thickness` is below 1.
    """
    check_whole("thickness", thickness, 1)
    picture = Image.fromarray(to_rgb_uint8(image))
    draw = ImageDraw.Draw(picture)
    for row_min, col_min, row_max, col_max in boxes:
        most = (min(row_max - row_min, col_max - col_min) + 1) // 2  # lines fill it
        corners = (col_min, row_min, col_max - 1, row_max - 1)
        draw.rectangle(corners, outline=RED, width=min(thickness, most))
    return np.array(picture)


def hottest_value(threshold: float) -> float:
    """Return the map value at which the colours of a heat map end."""
    return float(threshold + (abs(threshold) or 1.0))


def as_map(anomaly_map: ArrayLike) -> NDArray[np.float64]:
    """Return an anomaly map (H, W) as float64; refuse one that is not finite."""
    refuse_mask(anomaly_map, "anomaly_map")
    values = np.asarray(anomaly_map, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"anomaly_map must have shape (H, W); got {values.shape}.")
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        raise ValueError(f"anomaly_map must be finite; it holds {wrong[0]}.")
    return values


def read_picture(path: PathLike, size: Size) -> NDArray[np.uint8]:
    """Read a file of some (height, width) as RGB (H, W, 3), for viewing.

    Files of more than 2**25 pixels are made smaller. Of 16 bits, as many are shown as
    the brightest pixel needs: images of cameras with 12 bits are not black.
    """
    shrunk = min(1, math.sqrt(_MOST_PIXELS / math.prod(size)))
    height, width = (max(1, int(side * shrunk)) for side in size)
    image = read_image(path, (height, width))
    if image.dtype != np.uint16:
        return to_rgb_uint8(image)
    bits = next(n for n in _CAMERA_BITS if image.max() < 2**n)
    return to_rgb_uint8((image >> (bits - 8)).astype(np.uint8))


def line_width(rgb: NDArray[np.uint8]) -> int:
    """Return the width of a line that shows on a picture of this size."""
    return max(1, round(max(rgb.shape) / _LINES_A_SIDE))


def encode(rgb: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """Return the contents of a file: "PNG", "JPEG" or "BMP"."""
    content = io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 1}}
    Image.fromarray(rgb).save(content, kind, **options.get(kind, {}))
    return content.getvalue()


def _full_range(pixels: NDArray) -> tuple[float, float]:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return 0, np.iinfo(pixels.dtype).max
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:  # and bool
        return 0, 1
    return (low, high) if low < high else (low, low + 1)


def _resized_map(values: NDArray, size: Size, threshold: float) -> NDArray[np.float64]:
    """Resize a map smoothly without changing its verdict.

    Each value above the threshold stays at the pixel that its centre falls into, and
    none exceeds the largest of all, which rounding could.
    """
    image = Image.fromarray(values.astype(np.float32))
    smooth = image.resize(size[::-1], Image.Resampling.BILINEAR)
    resized = np.minimum(np.asarray(smooth), values.max())
    peaks = np.argwhere(values > threshold)  # (k, 2)
    at = (2 * peaks + 1) * size // (2 * np.array(values.shape))
    np.maximum.at(resized, tuple(at.T), values[tuple(peaks.T)])
    return resized


def _dilated(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Grow a mask (H, W) by so many pixels, to squares."""
    for _ in ("rows", "columns"):
        padded = np.pad(mask, ((by + 1, by), (0, 0)))
        count = np.cumsum(padded, axis=0, dtype=np.int32)
        mask = (count[2 * by + 1 :] > count[: -2 * by - 1]).T
    return mask


def _part_around(region: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the box around what is True, with a margin."""
    rows, cols = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    top, left = max(0, rows[0] - margin), max(0, cols[0] - margin)
    return slice(top, rows[-1] + margin + 1), slice(left, cols[-1] + margin + 1)
