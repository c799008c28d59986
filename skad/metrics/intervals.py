"""Confidence intervals of rates."""

import math

from scipy.stats import binomtest
from sklearn.exceptions import UndefinedMetricWarning

from skad.common.checks import as_float, is_whole
from skad.common.warnings import warn


def wilson_interval(
    successes: int, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a rate, `successes` of `n`, by Wilson's score method [1]_.

    Returns its ends, in [0, 1]; NaN with an `UndefinedMetricWarning` if `n` is 0.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", Journal of the American Statistical Association 22, 1927.
    """
    if not (is_whole(successes, 0) and is_whole(n) and successes <= n):
        raise ValueError(
            f"successes and n must be ints, 0 <= successes <= n; got {successes!r} and "
            f"{n!r}."
        )
    if not 0 < as_float(confidence) < 1:
        raise ValueError(
            f"confidence must be above 0 and below 1, as 0.95; got {confidence!r}."
        )
    if n == 0:
        words = "The interval of a rate is undefined without a single trial: NaN."
        warn(words, UndefinedMetricWarning)
        return math.nan, math.nan
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)
