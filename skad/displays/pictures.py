"""Pictures of image files at their own resolution, with what deviates drawn on them."""

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skad.detectors.regions import above, marked_patches, scaled_box
from skad.images.decoding import PathLike, read_image
from skad.images.resizing import Size
from skad.overlays.overlays import boxes_image, heat_map_image, to_rgb_uint8

Picture = NDArray[np.uint8]  # (H, W, 3)
Range = tuple[int, int]  # what is black, and what is white

MOST_PIXELS = 2**25  # of a picture: a file of more is drawn at a smaller size

_LINE = 400  # of the longer side of a picture, a line takes one part


def read_picture(
    path: PathLike, size: Size, value_range: Callable[[np.dtype], Range | None]
) -> Picture:
    """Read a file as the eye is to see it: upright, in its colours and at its size.

    A file of more than `MOST_PIXELS` pixels is made smaller. Memory is bounded: a file
    in colour takes about 14 bytes a pixel while it is decoded, as where it is read to
    be scored, and a picture fewer.

    Parameters
    ----------
    path : path
    size : (height, width)
        Of the file.
    value_range : callable
        Returns what is black and white for a number type, or None.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8
    """
    image = read_image(path, picture_size(size))
    return to_rgb_uint8(image, value_range=value_range(image.dtype))


def picture_size(size: Size) -> Size:
    """Return (height, width) of the picture of a file of some (height, width)."""
    shrunk = math.sqrt(MOST_PIXELS / (size[0] * size[1]))
    if shrunk >= 1:
        return size
    return max(1, int(size[0] * shrunk)), max(1, int(size[1] * shrunk))


def as_png(rgb: Picture) -> bytes:
    """Return the contents of a PNG file; large ones must not take long."""
    png = io.BytesIO()
    Image.fromarray(rgb).save(png, "PNG", compress_level=1)
    return png.getvalue()


def draw(
    rgb: Picture, anomaly_map: NDArray, threshold: float, *, box_side: int = 0
) -> Picture:
    """Draw on a picture where its map (h, w), of any size, is above the threshold.

    Heat with a line around it; or, where `box_side` is not 0, boxes around all patches
    of so many pixels of the map that have such a pixel.
    """
    if not box_side:
        outline = _line_width(rgb, least=1)
        return heat_map_image(rgb, anomaly_map, threshold, outline=outline)
    size = (anomaly_map.shape[0], anomaly_map.shape[1])
    boxes = marked_patches(above(anomaly_map, threshold), box_side)
    scaled = [scaled_box(box, size, rgb.shape[:2]) for box in boxes]
    return boxes_image(rgb, scaled, thickness=_line_width(rgb, least=2))


def _line_width(rgb: Picture, least: int) -> int:
    return max(least, round(max(rgb.shape[:2]) / _LINE))
