"""Whole numbers among what a user passes: sizes and counts."""

import math
from numbers import Integral
from typing import Any

import numpy as np


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Tell whether a value is a whole number of at least so much, and no bool."""
    return (
        isinstance(value, Integral)
        and not isinstance(value, bool)
        and int(value) >= least
    )


def whole_numbers(value: Any, *, alone: int = 0) -> tuple[int, ...]:
    """Return a tuple, list or array of whole numbers as a tuple of int; else ().

    A whole number alone counts for so many of them.
    """
    if is_whole(value):
        return (int(value),) * alone
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, tuple | list):
        return ()
    return tuple(map(int, value)) if all(map(is_whole, value)) else ()
