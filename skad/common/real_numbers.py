"""Real numbers among what a user passes: shares, rates and costs."""

import math
from numbers import Real
from typing import Any


def as_float(value: Any) -> float:
    """Return a real number as a float; NaN where it is none, or too large for one."""
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
