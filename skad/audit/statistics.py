"""Brightness and sharpness of images, and which are far from the others.

References
----------
.. [1] B. Iglewicz and D. C. Hoaglin, "How to detect and handle outliers", ASQC Basic
   References in Quality Control 16, 1993: the modified z-score.
.. [2] J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
   comparative study", ICPR 2000: the variance of the Laplacian.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from skad.common.robust import median_and_spread
from skad.network.preparation import to_unit_range


def brightness_and_sharpness(image: NDArray[Any]) -> tuple[float, float]:
    """Return the mean of an image (H, W, C), and how sharp it is.

    Integers are scaled by their type. Sharpness is the standard deviation of the
    Laplacian [2]_ over that of the image, so that exposure does not change it.
    """
    gray = to_unit_range(image).mean(2)
    spread = max(float(gray.std()), 1e-6)
    return float(gray.mean()), float(laplace(gray).std()) / spread


def robust_z(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return modified z-scores of values (n,): 0.6745 (x - median) / MAD [1]_.

    A standard deviation, MAD / 0.6745, below the `least` one counts as that.
    """
    centre, spread = median_and_spread(values)
    return (values - centre) / max(spread, least)
