"""Where an image is anomalous: connected regions of its map, and patches."""

from itertools import product
from typing import NamedTuple

import numpy as np

from skad.common.checks import check_size
from skad.inspection.components import connected_runs

Size = tuple[int, int]  # (height, width), pixels
Box = tuple[int, int, int, int]  # row_min, col_min, row_max, col_max; half-open


class Region(NamedTuple):
    """A connected anomalous region of an image.

    `bbox` is (row_min, col_min, row_max, col_max) in whole pixels, half-open, `area` a
    number of pixels, `peak` the largest value of the anomaly map, and `centroid` (row,
    column), where integers are the centres of pixels.
    """

    bbox: Box
    area: int
    peak: float
    centroid: tuple[float, float]

    def scaled(self, from_size: Size, to_size: Size) -> "Region":
        """Return the region in pixels of the same image at another size.

        Sizes are (height, width). The box grows to whole pixels; the area is at least
        1. Raises a ValueError if the box does not lie in `from_size`.

        >>> region = Region((10, 20, 12, 25), area=8, peak=3.0, centroid=(10.5, 22.0))
        >>> region.scaled((256, 256), (1024, 512))
        Region(bbox=(40, 40, 48, 50), area=64, peak=3.0, centroid=(43.5, 44.5))
        """
        old = check_size("from_size", from_size)
        new = check_size("to_size", to_size)
        box = self.bbox
        if not (0 <= box[0] < box[2] <= old[0] and 0 <= box[1] < box[3] <= old[1]):
            raise ValueError(
                "from_size must be the (height, width) of the region's image; the box "
                f"{box} does not lie in {old}."
            )
        down, right = new[0] / old[0], new[1] / old[1]
        row, column = self.centroid
        return Region(
            bbox=scaled_box(box, old, new),
            area=max(1, round(self.area * down * right)),
            peak=self.peak,
            centroid=((row + 0.5) * down - 0.5, (column + 0.5) * right - 0.5),
        )


def scaled_box(box: Box, from_size: Size, to_size: Size) -> Box:
    """Return a box in the pixels of another size, grown to whole pixels there."""
    (height, width), (new_height, new_width) = from_size, to_size
    return (
        box[0] * new_height // height,
        box[1] * new_width // width,
        -(-box[2] * new_height // height),
        -(-box[3] * new_width // width),
    )


def above(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Tell where maps exceed a threshold, to the last bit of it: bool.

    NumPy would round a float, which is not in an array, to the maps' float32.
    """
    return maps > np.array([threshold])


def find_regions(amap: np.ndarray, mask: np.ndarray) -> list[Region]:
    """List the 8-connected regions of a mask (H, W), the highest peak first.

    Of equal peaks, the region whose first pixel comes first.
    """
    runs = connected_runs(mask)
    if not len(runs.row):
        return []
    length = runs.stop - runs.start
    peaks = np.maximum.reduceat(amap[mask], np.cumsum(length) - length)  # of each run
    order = np.argsort(runs.component, kind="stable")  # rows of a region ascend
    first = np.flatnonzero(np.diff(runs.component[order], prepend=-1))

    def of_regions(join: np.ufunc, values: np.ndarray) -> np.ndarray:
        return join.reduceat(values[order], first)  # (n_regions,)

    peak = of_regions(np.maximum, peaks)
    area = of_regions(np.add, length)
    numbers = (
        of_regions(np.minimum, runs.row),
        of_regions(np.minimum, runs.start),
        of_regions(np.maximum, runs.row) + 1,
        of_regions(np.maximum, runs.stop),
        area,
        peak.astype(float),
        of_regions(np.add, runs.row * length) / area,
        of_regions(np.add, (runs.start + runs.stop - 1) * length) / (2 * area),
    )
    worst_first = np.argsort(-peak, kind="stable")
    columns = (column[worst_first].tolist() for column in numbers)
    return [
        Region((top, left, bottom, right), area, peak, (row, column))
        for top, left, bottom, right, area, peak, row, column in zip(
            *columns, strict=True
        )
    ]


def marked_patches(over: np.ndarray, side: int) -> list[Box]:
    """List the boxes, as a region's, of the patches that hold a True pixel."""
    height, width = over.shape
    return [
        (row, col, min(row + side, height), min(col + side, width))
        for row, col in product(range(0, height, side), range(0, width, side))
        if over[row : row + side, col : col + side].any()
    ]
