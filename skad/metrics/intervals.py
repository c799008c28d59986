"""How well anomalous images and pixels are told from good ones, by scores and maps."""

import math

from scipy.stats import binomtest

from skad.common.checks import as_float, is_whole
from skad.metrics.localization import warn_undefined


def wilson_interval(
    successes: int, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a rate by Wilson's score method [1]_.

    Parameters
    ----------
    successes : int
        How often it happened, from 0 to `n`.
    n : int
        Number of trials.
    confidence : float, default=0.95
        Confidence level, in (0, 1).

    Returns
    -------
    low, high : float
        Ends of the interval, in [0, 1]. NaN where `n` is 0.

    Raises
    ------
    ValueError
        Where the two are no whole numbers, `successes` is not from 0 to `n`, or
        `confidence` not in (0, 1).

    Warns
    -----
    UndefinedMetricWarning
        Where `n` is 0.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> low, high = wilson_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    if not (is_whole(successes, 0) and is_whole(n) and successes <= n):
        raise ValueError(
            f"successes must be from 0 to n; got {successes!r} of n={n!r}. "
            "Pass two counts, whole numbers."
        )
    if not (0 < as_float(confidence) < 1):
        raise ValueError(
            f"confidence must be above 0 and below 1; got {confidence!r}. "
            "Pass 0.95 for 95 %."
        )
    if n == 0:
        warn_undefined("The interval of a rate", "trial")
        return math.nan, math.nan
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)
