"""Thresholds on scores: a promised false-alarm rate, or the best one for labels.

Scores are higher for more normal images, and an image is flagged as anomalous
exactly when its score is below the offset; a score equal to it counts as good.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from skad.common.checks import as_float, refuse_mask
from skad.common.labels import check_labels
from skad.common.warnings import warn
from skad.threshold.promise import images

_VERY_MANY = 1e9  # images: more do not come together
_METRICS = ("balanced_accuracy", "f1", "cost")


def conformal_threshold(calibration_scores: ArrayLike, target_fpr: float) -> float:
    """Offset that flags a new good image with probability at most `target_fpr`.

    With `m` calibration scores sorted upwards and `k = floor(target_fpr (m + 1))`
    the offset is the `k`-th score. A new score that is exchangeable with them is
    strictly below it with probability at most `k / (m + 1)` [1]_, over the draw of
    the calibration scores and of the new one together. Ties only lower this.

    Parameters
    ----------
    calibration_scores : array-like of shape (m,)
        Scores of good images that training never saw; higher = more normal.
    target_fpr : float
        Promised rate of false alarms on good images, in (0, 1).

    Returns
    -------
    offset : float
        One of the calibration scores: the lowest, with a warning, where `m` is too
        small for the promise.

    Raises
    ------
    ValueError
        Where there is no score, one is not finite, or `target_fpr` is not in (0, 1).

    Warns
    -----
    UserWarning
        Where `k = 0`: no offset can promise `target_fpr` from `m` scores.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random
       World", Springer, 2005, chapter 2.

    Examples
    --------
    >>> conformal_threshold([-0.4, -0.1, -0.3, -0.2], target_fpr=0.4)
    -0.3
    """
    scores = np.sort(_check_calibration_scores(calibration_scores))
    if not 0 < as_float(target_fpr) < 1:
        raise ValueError(
            f"target_fpr must be above 0 and below 1; got {target_fpr!r}. "
            "0.05 promises at most 5 false alarms in 100 good images."
        )
    m, target_fpr = len(scores), float(target_fpr)
    k = conformal_rank(m, target_fpr)
    if k == 0:
        needed = math.ceil(min(1 / target_fpr, _VERY_MANY) - 1e-9) - 1
        warn(
            f"target_fpr={target_fpr:g} cannot be promised: {images(m)} can promise "
            f"{100 / (m + 1):.3g} % at best, and that is used. Calibrate with at least "
            f"{needed} good images that training has not seen, or raise target_fpr."
        )
    return float(scores[min(max(k, 1), m) - 1])


def conformal_rank(m: int, target_fpr: float) -> int:
    """Return which of `m` calibration scores, from 1 upwards, promises `target_fpr`.

    0 where none does.
    """
    return floor_of_decimals(target_fpr * (m + 1))


def promised_fpr(m: int, target_fpr: float) -> float:
    """Return the rate of false alarms that `conformal_threshold` promises.

    It is `target_fpr`, or `1 / (m + 1)` where `m` scores are too few for that.
    """
    return max(float(target_fpr), 1 / (m + 1))


def conformal_p_value(
    scores: ArrayLike, calibration_scores: ArrayLike
) -> NDArray[np.float64]:
    """Conformal p-value: how rare a score this low is among good images.

    `p(s) = (1 + #{i : s_i <= s}) / (m + 1)`, Eq. 2 of [1]_ for scores that are
    higher for more normal images. A good image has `p <= a` with probability at
    most `a`, for every `a`.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores of the images in question; higher = more normal.
    calibration_scores : array-like of shape (m,)
        Scores of good images that training never saw, in any order.

    Returns
    -------
    p : ndarray of shape (n,), float64
        Values from `1 / (m + 1)` to 1.

    Raises
    ------
    ValueError
        Where there is no calibration score, or a score is not a finite number.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers
       with conformal p-values", Annals of Statistics 51(1), 2023.

    Examples
    --------
    >>> conformal_p_value([-0.5, -0.3, 0.0], [-0.4, -0.1, -0.3, -0.2])
    array([0.2, 0.6, 1. ])
    """
    calibration = np.sort(_check_calibration_scores(calibration_scores))
    values = check_scores(scores, "scores")
    not_above = np.searchsorted(calibration, values, side="right")
    return (1.0 + not_above) / (len(calibration) + 1)


@dataclass(frozen=True)
class LabelledThreshold:
    """A threshold chosen on labelled images, and how it did on those images.

    Attributes
    ----------
    offset : float
        Scores below it are flagged.
    metric : str
        What was optimised: "balanced_accuracy", "f1" or "cost".
    value : float
        The metric at the offset; for "cost" the mean cost of an image.
    detection_rate, false_alarm_rate : float
        Shares of the anomalous and of the good images that are flagged, in [0, 1].
    detection_interval, false_alarm_interval : tuple of two floats
        95 % Clopper-Pearson intervals of the two rates. The offset was chosen on
        the same images, so both are somewhat too favourable.
    """

    offset: float
    metric: str
    value: float
    detection_rate: float
    false_alarm_rate: float
    detection_interval: tuple[float, float]
    false_alarm_interval: tuple[float, float]


def labelled_threshold(
    scores: ArrayLike,
    y: ArrayLike,
    metric: str = "balanced_accuracy",
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> LabelledThreshold:
    """Offset that does best by a stated metric on labelled images.

    Candidates are the midpoints between neighbouring distinct scores, one offset
    below all scores and one above. Among equally good ones the lowest is taken: it
    has the fewest false alarms.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores of the labelled images; higher = more normal.
    y : array-like of shape (n,)
        Labels: +1 good, -1 anomalous; both must occur.
    metric : {"balanced_accuracy", "f1", "cost"}
        Balanced accuracy and F1 (of the anomalous images) are maximised, the mean
        cost of an image is minimised.
    cost_miss, cost_false_alarm : float
        Cost of an anomalous image that is not flagged, and of a good one that is;
        >= 0 and not both 0; used by "cost" alone.

    Returns
    -------
    threshold : LabelledThreshold
        The offset, with the metric, the two rates and their intervals.

    Raises
    ------
    ValueError
        Where labels are not +1 and -1, one of them is missing, lengths differ, a
        score is not finite, a cost is out of its range, or the metric is unknown.

    References
    ----------
    .. [1] C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits
       illustrated in the case of the binomial", Biometrika 26(4), 1934.

    Examples
    --------
    >>> best = labelled_threshold([-8.0, -6.0, -2.0, -1.0], [-1, -1, 1, 1])
    >>> best.offset, best.value, best.detection_rate, best.false_alarm_rate
    (-4.0, 1.0, 1.0, 0.0)
    """
    values = check_scores(scores, "scores")
    anomalous = _check_both_labels(y, len(values))
    check_metric(metric, cost_miss, cost_false_alarm)
    offsets = _candidate_offsets(values)
    hits = np.searchsorted(np.sort(values[anomalous]), offsets, side="left")
    alarms = np.searchsorted(np.sort(values[~anomalous]), offsets, side="left")
    n_bad, n_good = int(anomalous.sum()), int((~anomalous).sum())

    if metric == "balanced_accuracy":
        value = gain = (hits / n_bad + 1 - alarms / n_good) / 2
    elif metric == "f1":
        value = gain = 2 * hits / (hits + alarms + n_bad)
    else:
        with np.errstate(over="ignore"):
            cost = float(cost_miss) * (n_bad - hits) + float(cost_false_alarm) * alarms
        gain, value = -cost, cost / len(values)
    # Equal up to rounding; offsets ascend, so the first has the fewest alarms.
    best = int(np.argmax(np.isclose(gain, gain.max(), rtol=1e-12, atol=0.0)))
    hit, alarm = int(hits[best]), int(alarms[best])
    return LabelledThreshold(
        offset=float(offsets[best]),
        metric=metric,
        value=float(value[best]),
        detection_rate=hit / n_bad,
        false_alarm_rate=alarm / n_good,
        detection_interval=_clopper_pearson(hit, n_bad),
        false_alarm_interval=_clopper_pearson(alarm, n_good),
    )


def floor_of_decimals(product: float) -> int:
    """Return the whole part of a product of decimals: 0.29 * 100 is 29, not 28.999."""
    return math.floor(product + 1e-9)


def _candidate_offsets(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """One offset for each way to split the scores, ascending: (n_distinct + 1,)."""
    levels = np.unique(scores)
    low, high = levels[:-1], levels[1:]
    middle = low / 2 + high / 2
    # Between adjacent floats the middle is the lower one, and would not flag it.
    middle = np.where(middle > low, middle, high)
    margin = (levels[-1] - levels[0]) / (2 * max(len(levels) - 1, 1))
    below = np.nextafter(levels[0] - margin, -np.inf)
    above = np.nextafter(levels[-1] + margin, np.inf)
    if levels[-1] < 0:  # scores from maps >= 0: what has no evidence is not flagged
        above = min(above, 0.0)
    return np.concatenate([[below], middle, [above]])


def _clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    interval = binomtest(successes, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def check_scores(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return scores as an array (n,) of finite numbers."""
    refuse_mask(scores, name)
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, one number an image; "
            f"got shape {values.shape}. Pass what score_samples returns."
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(
            f"{name} must be finite numbers; {name}[{wrong[0]}] is {values[wrong[0]]}. "
            "Leave that image out, or look for what made its score so."
        )
    return values


def _check_calibration_scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = check_scores(scores, "calibration_scores")
    if not len(values):
        raise ValueError(
            "calibration_scores must hold at least one score; got none. "
            "Hold out good images for calibration, or raise validation_fraction."
        )
    return values


def _check_both_labels(y: ArrayLike, n: int) -> NDArray[np.bool_]:
    """Check labels, and return where they say anomalous: (n,) bool."""
    labels = check_labels(y, n)
    found = np.unique(labels).tolist()
    if len(found) < 2:
        raise ValueError(
            f"y must hold both labels, +1 (good) and -1 (anomalous); got {found}. "
            "Add images of the other kind, or calibrate on good images alone "
            "with target_fpr."
        )
    return labels == -1


def check_metric(metric: str, cost_miss: float, cost_false_alarm: float) -> None:
    """Raise a ValueError unless a threshold can be chosen by these."""
    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {_METRICS}; got {metric!r}.")
    check_costs(cost_miss, cost_false_alarm)


def check_costs(cost_miss: float, cost_false_alarm: float) -> None:
    """Raise a ValueError unless both are costs, and one of them counts."""
    costs = {"cost_miss": cost_miss, "cost_false_alarm": cost_false_alarm}
    for name, cost in costs.items():
        if not 0 <= as_float(cost) < math.inf:
            raise ValueError(
                f"{name} must be a finite number >= 0; got {cost!r}. "
                "Pass what one such mistake costs."
            )
    if not any(map(as_float, costs.values())):
        raise ValueError(
            "cost_miss or cost_false_alarm must be above 0; both are 0. "
            "Pass what one such mistake costs."
        )
