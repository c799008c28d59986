"""A threshold from few scores that promise nothing, and of which one may be odd.

References
----------
.. [1] W. Q. Meeker, G. J. Hahn and L. A. Escobar, "Statistical Intervals", 2nd edition,
   Wiley, 2017, section 4.7: prediction limits of a normal distribution.
.. [2] M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions", National
   Bureau of Standards, 1964, Eq. 26.7.5.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from skad.common.robust import median_and_spread

_LEAST_SPREAD = 0.05  # of logarithms, where most scores are equal


def robust_threshold(scores: ArrayLike, target_fpr: float) -> float:
    """Return the offset that flags about this share of good images.

    The logarithms of m scores <= 0 count as normal, with their median as mean and a
    standard deviation by their median absolute deviation: a few odd images move it
    little. The offset is the prediction limit ``mean + t sqrt(1 + 1 / m) std`` [1]_
    with Student's t for m - 1 degrees of freedom.
    """
    values = np.log(np.maximum(-np.asarray(scores, float), np.finfo(float).tiny))
    m, (centre, spread) = len(values), median_and_spread(values)
    t = _student_t(1 - target_fpr, max(m - 1, 1))
    limit = centre + t * math.sqrt(1 + 1 / m) * max(spread, _LEAST_SPREAD)
    return -math.exp(min(limit, 700.0))


def _student_t(p: float, df: int) -> float:
    """Return the p quantile of Student's t, nearly, without SciPy [2]_."""
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / df + second / df**2
