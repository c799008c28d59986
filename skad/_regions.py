"""Where an image deviates: the connected regions of a map, the patches that do."""

from itertools import product
from typing import NamedTuple

import numpy as np
from skimage.measure import label, regionprops


class Region(NamedTuple):
    """A connected part of an image that deviates."""

    bbox: tuple[int, int, int, int]  # row_min, col_min, row_max, col_max, half-open
    area: int  # pixels
    peak: float  # the largest value of the map
    centroid: tuple[float, float]  # row, column


def above(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Tell where maps exceed a threshold, to the last bit of it: bool.

    NumPy would round a float, which is not in an array, to the maps' float32.
    """
    return maps > np.array([threshold])


def find_regions(amap: np.ndarray, mask: np.ndarray) -> list[Region]:
    """List the 8-connected regions of a mask (H, W), the highest peak first."""
    found = [
        Region(
            bbox=(p.bbox[0], p.bbox[1], p.bbox[2], p.bbox[3]),
            area=int(p.area),
            peak=float(p.intensity_max),
            centroid=(float(p.centroid[0]), float(p.centroid[1])),
        )
        for p in regionprops(label(mask, connectivity=2), intensity_image=amap)
    ]
    return sorted(found, key=lambda region: -region.peak)


def marked_patches(over: np.ndarray, side: int) -> list[tuple[int, ...]]:
    """List the boxes, as a region's, of the patches that hold a True pixel."""
    height, width = over.shape
    return [
        (row, col, min(row + side, height), min(col + side, width))
        for row, col in product(range(0, height, side), range(0, width, side))
        if over[row : row + side, col : col + side].any()
    ]
