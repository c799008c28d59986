"""Pictures of what was found, as plain arrays: heat and boxes laid over an image."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter

from skad.common.checks import as_float, check_whole, refuse_mask
from skad.overlays.strips import map_strips, strips

__all__ = ["boxes_image", "heat_map_image", "hottest_value", "to_rgb_uint8"]

# Purple, orange, pale yellow: lightness only rises, so that it reads without colour.
_HEAT = np.array([[120, 28, 109], [237, 105, 37], [252, 255, 164]], dtype=np.float64)
_RED = (255, 0, 0)
VERMILION = (213, 94, 0)  # of M. Okabe and K. Ito's colours, 2008


def to_rgb_uint8(
    image: ArrayLike, *, value_range: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Turn an image of any kind into red, green and blue from 0 to 255, for the eye.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        One channel becomes gray, three are red, green and blue, and of any other
        number of channels the mean is shown in gray.
    value_range : tuple of two floats, default=None
        Values that become black and full brightness, as (0, 4095) for a camera of 12
        bits. None: 0 to the largest value of the type for bool, uint8 and uint16;
        otherwise 0 to 1 where the image fits into it, and its own least and greatest
        value where not.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
        A new array.

    Raises
    ------
    ValueError
        Where the shape is another, a value is not finite, or the range is empty.

    Examples
    --------
    >>> to_rgb_uint8(np.array([[0.0, 0.5, 1.0]]))[0, :, 0]
    array([  0, 128, 255], dtype=uint8)
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            f"image must have shape (H, W) or (H, W, C); got {pixels.shape}. "
            "Of a batch pass one image: images[0]."
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError(
            "image must hold finite numbers; got NaN or infinity. "
            "Replace them: np.nan_to_num(image)."
        )
    low, high = _usual_range(pixels) if value_range is None else _range(value_range)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]  # (H, W, 1)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels.mean(axis=2, keepdims=True)  # (H, W, 1)
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return np.repeat(pixels, 3 // pixels.shape[2], axis=2)  # (H, W, 3)
    rgb = np.empty((*pixels.shape[:2], 3), dtype=np.uint8)
    for rows in strips(pixels.shape):
        unit = (pixels[rows].astype(np.float64) - low) / (high - low)
        rgb[rows] = np.floor(255 * np.clip(unit, 0, 1) + 0.5)
    return rgb


def heat_map_image(
    image: ArrayLike,
    anomaly_map: ArrayLike,
    threshold: float,
    *,
    opacity: float = 0.6,
    outline: int = 0,
) -> NDArray[np.uint8]:
    """Lay heat over an image exactly where its anomaly map exceeds the threshold.

    Colours follow one absolute scale: they begin at the threshold and are at their
    hottest from :func:`hottest_value` on, which is twice a positive threshold.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, in any form that :func:`to_rgb_uint8` takes.
    anomaly_map : array-like of shape (H, W) or (h, w)
        Its anomaly map, higher = worse. One of another size, as of an image that was
        resized for the detector, is resized smoothly; what is above the threshold in
        it stays so, and nothing else gets above.
    threshold : float
        Map values above it are anomalous.
    opacity : float, default=0.6
        Weight of the heat against the image, in [0, 1].
    outline : int, default=0
        Width in pixels of the vermilion line around the heat.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
        The image, unchanged where `anomaly_map <= threshold`, the outline aside.

    Raises
    ------
    ValueError
        Where the map has no two axes or is not finite, `threshold` is NaN, `opacity` is
        not in [0, 1], or `outline` is no whole number of at least 0.

    Examples
    --------
    >>> gray = np.full((1, 2), 100, dtype=np.uint8)
    >>> heat_map_image(gray, np.array([[0.5, 1.5]]), threshold=1.0)[0]
    array([[100, 100, 100],
           [182, 103,  62]], dtype=uint8)
    """
    rgb = to_rgb_uint8(image)
    values = as_map(anomaly_map)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"anomaly_map must have shape (H, W); got {values.shape}.")
    if not as_float(threshold) > -math.inf:
        raise ValueError(
            f"threshold must be a number above minus infinity; got {threshold!r}."
        )
    if not (0 <= as_float(opacity) <= 1):
        raise ValueError(f"opacity must be from 0 to 1; got {opacity!r}.")
    check_whole("outline", outline, 0)
    if not values.max() > threshold:
        return rgb
    size = rgb.shape[0], rgb.shape[1]
    over = np.zeros(size, dtype=bool)
    for rows, here in map_strips(values, size, threshold):
        over[rows] = here > threshold
        _paint_heat(rgb[rows], here, over[rows], threshold, opacity)
    if outline:
        _paint_around(rgb, over, outline)
    return rgb


def _paint_heat(
    rgb: NDArray[np.uint8],
    values: NDArray[np.floating],
    over: NDArray[np.bool_],
    threshold: float,
    opacity: float,
) -> None:
    degree = (values[over] - threshold) / (hottest_value(threshold) - threshold)
    stops = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(degree, stops, c) for c in _HEAT.T], axis=1)  # (k, 3)
    blend = (1 - opacity) * rgb[over] + opacity * heat
    rgb[over] = np.floor(blend + 0.5).astype(np.uint8)


def _paint_around(rgb: NDArray[np.uint8], over: NDArray[np.bool_], width: int) -> None:
    """Draw a line of a width around what is True, in place."""
    rows, columns = (np.flatnonzero(over.any(axis)) for axis in (1, 0))
    part = tuple(
        slice(max(at[0] - width, 0), at[-1] + width + 1) for at in (rows, columns)
    )
    inside = over[part]
    near = maximum_filter(inside.view(np.uint8), 2 * width + 1, mode="constant")
    rgb[part][near.astype(bool) & ~inside] = VERMILION


def as_map(anomaly_map: ArrayLike) -> NDArray[np.float64]:
    """Return an anomaly map as float64; refuse one that is not finite."""
    refuse_mask(anomaly_map, "anomaly_map")
    values = np.asarray(anomaly_map, dtype=np.float64)
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(
            f"anomaly_map must be finite; it holds {values[wrong][0]}. "
            "Replace it, or leave that image out."
        )
    return values


def hottest_value(threshold: float) -> float:
    """Map value at which colours stop changing.

    Parameters
    ----------
    threshold : float
        The threshold of the map.

    Returns
    -------
    value : float
        Twice a positive threshold; in general one size of the threshold above it,
        or 1 above it where it is 0.

    Examples
    --------
    >>> hottest_value(0.25)
    0.5
    """
    return float(threshold + (abs(threshold) or 1.0))


def boxes_image(
    image: ArrayLike, boxes: Iterable[Sequence[int]], *, thickness: int = 2
) -> NDArray[np.uint8]:
    """Outline boxes in red; the lines lie inside the boxes.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, C)
        The image, in any form that :func:`to_rgb_uint8` takes.
    boxes : iterable of (row_min, col_min, row_max, col_max)
        Half-open boxes, as from `skimage.measure.regionprops`. What lies outside the
        image is not drawn.
    thickness : int, default=2
        Width of the lines in pixels, at least 1.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
        The image with the outlines.

    Raises
    ------
    ValueError
        Where a box is not four numbers or is empty, or `thickness` is no whole number
        of at least 1.

    Examples
    --------
    >>> gray = np.zeros((3, 4), dtype=np.uint8)
    >>> boxes_image(gray, [(0, 1, 3, 4)], thickness=1)[:, :, 0]
    array([[  0, 255, 255, 255],
           [  0, 255,   0, 255],
           [  0, 255, 255, 255]], dtype=uint8)
    """
    check_whole("thickness", thickness, 1)
    rgb = to_rgb_uint8(image)
    for i, box in enumerate(boxes):
        if len(box) != 4 or box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(
                "A box must be (row_min, col_min, row_max, col_max) with min < max; "
                f"boxes[{i}] is {tuple(box)}."
            )
        row_min, col_min, row_max, col_max = (int(edge) for edge in box)
        for start in (row_min, max(row_max - thickness, row_min)):
            _paint(rgb, start, col_min, min(start + thickness, row_max), col_max)
        for start in (col_min, max(col_max - thickness, col_min)):
            _paint(rgb, row_min, start, row_max, min(start + thickness, col_max))
    return rgb


def _paint(rgb: NDArray[np.uint8], top: int, left: int, bottom: int, right: int):
    """Fill the part of a rectangle that lies in the image (negative = outside)."""
    top, left, bottom, right = (max(edge, 0) for edge in (top, left, bottom, right))
    rgb[top:bottom, left:right] = _RED


def _range(value_range: tuple[float, float]) -> tuple[float, float]:
    ends = np.asarray(value_range, dtype=object).ravel()
    fits = len(ends) == 2 and all(isinstance(end, Real) for end in ends)
    if not (fits and -np.inf < ends[0] < ends[1] < np.inf):
        raise ValueError(
            "value_range must be (low, high), two finite numbers, low < high; got "
            f"{value_range!r}."
        )
    return ends[0], ends[1]


def _usual_range(pixels: NDArray) -> tuple[float, float]:
    if pixels.dtype == bool:
        return 0, 1
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return 0, int(np.iinfo(pixels.dtype).max)
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return 0, 1
    return (low, high) if low < high else (low, low + 1)
