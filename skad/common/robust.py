"""Centre and spread of numbers, of which some may be odd."""

import numpy as np
from numpy.typing import NDArray

_MAD_OF_NORMAL = 0.6745  # median absolute deviation in standard deviations


def median_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and the standard deviation by the median absolute deviation.

    The latter is right for normal numbers.
    """
    centre = float(np.median(values))
    return centre, float(np.median(np.abs(values - centre))) / _MAD_OF_NORMAL
