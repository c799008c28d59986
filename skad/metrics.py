"""How well anomalous images and pixels are told from good ones, by scores and maps."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from skad._localization import (
    au_pro_score,
    is_undefined,
    pixel_auroc_score,
    pro_curve,
    warn_undefined,
)

__all__ = [
    "au_pro_score",
    "image_auroc_score",
    "pixel_auroc_score",
    "pro_curve",
    "wilson_interval",
]


def image_auroc_score(y: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve over images.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels: +1 good, -1 anomalous.
    scores : array-like of shape (n,)
        Scores, higher = more normal, as from `score_samples`.

    Returns
    -------
    score : float
        From 0 to 1; 1 = every good image above every anomalous one. NaN where only
        one of the labels occurs.

    Raises
    ------
    ValueError
        Where labels are not +1 and -1, lengths differ or a score is not finite.

    Warns
    -----
    UndefinedMetricWarning
        Where the score is NaN.

    Examples
    --------
    >>> image_auroc_score([1, 1, -1, -1], [-0.1, -0.3, -0.2, -0.9])
    0.75
    """
    labels, values = _check_labels_and_scores(y, scores)
    good = labels == 1
    if is_undefined(values[good], values[~good], "The image AUROC", "image"):
        return math.nan
    return float(roc_auc_score(good, values))


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
        Where `successes` is not from 0 to `n`, or `confidence` not in (0, 1).

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
    if not 0 <= successes <= n:
        raise ValueError(
            f"successes must be from 0 to n; got {successes!r} of n={n!r}."
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must be above 0 and below 1; got {confidence!r}. "
            "Pass 0.95 for 95 %."
        )
    if n == 0:
        warn_undefined("The interval of a rate", "trial", stacklevel=3)
        return math.nan, math.nan
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)


def _check_labels_and_scores(
    y: ArrayLike, scores: ArrayLike
) -> tuple[NDArray, NDArray[np.float64]]:
    """Check labels of +1 and -1 and their scores, and return both as arrays."""
    labels, values = np.asarray(y), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != values.shape or not len(labels):
        raise ValueError(
            "y and scores must be one-dimensional, of one length, and not empty; got "
            f"shapes {labels.shape} and {values.shape}. Pass one label and one score "
            "an image."
        )
    found = np.unique(labels).tolist()
    if not set(found) <= {-1, 1}:
        raise ValueError(
            f"y must hold the labels +1 (good) and -1 (anomalous); got {found[:5]}. "
            "Where 1 meant anomalous, pass y = np.where(y == 1, -1, 1)."
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(
            f"scores must be finite numbers; scores[{wrong[0]}] is {values[wrong[0]]}. "
            "Leave that image out, or look for what made its score so."
        )
    return labels, values
