"""Masked arrays are refused: NumPy would drop their masks without a word."""

from typing import Any

import numpy as np


def refuse_mask(array: Any, name: str, hint: str = "") -> None:
    """Raise a ValueError for a masked array in which something is masked."""
    # pandas has arrays with a mask of their own, whose missing values NumPy shows.
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name} must have no mask, which would be ignored; got a masked array. "
            f"Pass its data, as in X.data{hint}."
        )
