"""Masks that hold numbers, as bool arrays."""

import numpy as np
from numpy.typing import NDArray


def as_mask(pixels: NDArray) -> NDArray[np.bool_]:
    """Return where a mask is marked.

    Parameters
    ----------
    pixels : ndarray of bool or of numbers
        One value alone: all is marked, unless it is 0. Two values: the larger one says
        where. More, as in a JPEG or at soft edges: what is above half of the largest.

    Returns
    -------
    ndarray of bool of the same shape
    """
    if pixels.dtype == bool:
        return pixels
    values = np.unique(pixels)
    if len(values) <= 1:
        return pixels > 0
    return pixels == values[1] if len(values) == 2 else pixels > values[-1] / 2


def has_more_than_two_values(pixels: NDArray) -> bool:
    """Tell whether a mask leaves open where exactly it is marked."""
    return pixels.dtype != bool and len(np.unique(pixels)) > 2
