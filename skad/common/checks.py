"""Checks of what users pass: whole and real numbers, image sizes and masks."""

import math
import pickle
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 2**28  # 16384 x 16384: far above any camera, 1 GiB as Pillow holds colour


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Tell whether a value is an integer of at least `least`, and no bool."""
    return (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and int(value) >= least
    )


def check_whole(name: str, value: Any, least: int) -> int:
    """Return an int; raise a ValueError unless it is one of at least `least`."""
    if not is_whole(value, least):
        raise ValueError(f"{name} must be an int of at least {least}; got {value!r}.")
    return int(value)


def whole_numbers(value: Any, *, alone: int = 0) -> tuple[int, ...]:
    """Return integers as a tuple of int, one alone repeated; () for others."""
    if is_whole(value):
        return (int(value),) * alone
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, tuple | list):
        return ()
    return tuple(map(int, value)) if all(map(is_whole, value)) else ()


def check_size(name: str, value: Any) -> tuple[int, int]:
    """Return (height, width) in pixels; an int is both."""
    sides = whole_numbers(value, alone=2)
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        rule = f"an int or (height, width), from 1 to {MAX_PIXELS} whole pixels in all"
        raise ValueError(f"{name} must be {rule}; got {value!r}.")
    return sides[0], sides[1]


def as_float(value: Any) -> float:
    """Return a real number as a float; NaN, which is in no range, for others."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def refuse_mask(array: Any, name: str, hint: str = "") -> None:
    """Raise a ValueError for a masked array: NumPy would drop its mask silently."""
    # pandas has arrays with a mask of their own, whose missing values NumPy shows.
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        rule = f"{name} must have no mask, which would be ignored"
        raise ValueError(f"{rule}; got a masked array. Pass X.data{hint}.")


def as_mask(pixels: NDArray) -> NDArray[np.bool_]:
    """Return a mask of bool or of numbers as bool, of the same shape.

    Of two values, the larger one counts; of one, any but 0; of more, as in a JPEG or at
    soft edges, those above half of the largest.
    """
    if pixels.dtype == bool:
        return pixels
    values = np.unique(pixels)
    if len(values) <= 1:
        return pixels > 0
    return pixels == values[1] if len(values) == 2 else pixels > values[-1] / 2


def check_pickles(source: Any) -> None:
    """Raise a ValueError for a lazy sequence that joblib could not tell from others."""
    try:
        pickle.dumps(source)
    except Exception as error:  # of any type, from the class of a user
        raise ValueError(
            "With memory or a checkpoint, a lazy sequence must be one that can be "
            f"pickled; {type(source).__name__} cannot: {error}. Pass an array."
        ) from error
