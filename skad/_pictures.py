"""Pictures of image files at their own resolution, with what deviates drawn on them."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skad._decoding import PathLike
from skad._regions import Box, scaled_box
from skad._resizing import Size
from skad.images import read_image, resize_image
from skad.overlays import boxes_image, heat_map_image, to_rgb_uint8

Picture = NDArray[np.uint8]  # (H, W, 3)
Range = tuple[int, int]  # what is black, and what is white

MOST_PIXELS = 2**25  # of a picture: a file of more is drawn at a smaller size

_LINE = 400  # of the longer side of a picture, a line takes one part


def read_picture(
    path: PathLike, value_range: Callable[[np.dtype], Range | None]
) -> Picture:
    """Read a file as the eye is to see it: upright, in its colours and at its size.

    A file of more than `MOST_PIXELS` pixels is made smaller, so that a picture and what
    it takes to draw it stay below 1 GB.

    Parameters
    ----------
    path : path
    value_range : callable
        Returns what is black and white for a number type, or None.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
    """
    image = read_image(path)
    size = picture_size(image.shape[:2])
    if size != image.shape[:2]:
        image = resize_image(image, size)
    return to_rgb_uint8(image, value_range=value_range(image.dtype))


def picture_size(size: Size) -> Size:
    """Return (height, width) of the picture of a file of some (height, width)."""
    shrunk = math.sqrt(MOST_PIXELS / (size[0] * size[1]))
    if shrunk >= 1:
        return size
    return max(1, int(size[0] * shrunk)), max(1, int(size[1] * shrunk))


def heat_picture(rgb: Picture, anomaly_map: NDArray, threshold: float) -> Picture:
    """Lay heat on a picture where its map of any size is above the threshold."""
    outline = _line_width(rgb, least=1)
    return heat_map_image(rgb, anomaly_map, threshold, outline=outline)


def boxes_picture(rgb: Picture, boxes: list[Box], size: Size) -> Picture:
    """Draw boxes that were found in an image of a (height, width) on its picture."""
    scaled = [scaled_box(box, size, rgb.shape[:2]) for box in boxes]
    return boxes_image(rgb, scaled, thickness=_line_width(rgb, least=2))


def _line_width(rgb: Picture, least: int) -> int:
    return max(least, round(max(rgb.shape[:2]) / _LINE))
