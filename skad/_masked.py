"""Masked arrays are refused: NumPy would drop their masks without a word."""

from typing import Any

import numpy as np


def refuse_mask(array: Any, name: str, hint: str = "") -> None:
    """Raise a ValueError for a masked array in which something is masked."""
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} must have no mask, which would be ignored; got a masked array. "
            f"Pass its data, as in X.data{hint}."
        )
