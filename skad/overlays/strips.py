"""Images by strips of rows, so that large ones take little memory beside themselves."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PIXELS = 2**20  # of a strip


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of the strips of an image (H, W, ...), from the top."""
    n_rows = max(1, _PIXELS // shape[1])
    return (
        slice(top, min(top + n_rows, shape[0])) for top in range(0, shape[0], n_rows)
    )


def map_strips(
    values: NDArray[np.float64], size: tuple[int, int], threshold: float
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Yield an anomaly map, resized smoothly to (height, width), strip by strip.

    Smoothing must not change a verdict: what is above the threshold stays so at the
    pixel that its centre falls into, and the largest value is not exceeded.
    """
    if values.shape == size:
        yield from ((rows, values[rows]) for rows in strips(size))
        return
    height, width = values.shape
    image = Image.fromarray(values.astype(np.float32))
    peaks = np.argwhere(values > threshold)  # (k, 2)
    at = (2 * peaks + 1) * size // (2 * np.array(values.shape))
    peak_values = values[tuple(peaks.T)]
    for rows in strips(size):
        box = (0, rows.start * height / size[0], width, rows.stop * height / size[0])
        resized = image.resize(
            (size[1], rows.stop - rows.start), Image.Resampling.BILINEAR, box=box
        )
        part = np.minimum(np.asarray(resized), values.max())  # of rounding
        here = (at[:, 0] >= rows.start) & (at[:, 0] < rows.stop)
        place = (at[here, 0] - rows.start, at[here, 1])
        np.maximum.at(part, place, peak_values[here])
        yield rows, part
