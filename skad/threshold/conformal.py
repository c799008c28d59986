"""From scores to a verdict: a promised false-alarm rate, or the best rate for labels.

Scores are higher for more normal images. An image is flagged as anomalous exactly when
its score is below the offset.

References
----------
.. [1] V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World",
   Springer, 2005, chapter 2.
.. [2] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with
   conformal p-values", Annals of Statistics 51(1), 2023.
.. [3] C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits
   illustrated in the case of the binomial", Biometrika 26(4), 1934.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_float
from skad.common.warnings import warn
from skad.threshold.robust import robust_threshold

METRICS = ("balanced_accuracy", "f1", "cost")


def conformal_threshold(calibration_scores: ArrayLike, target_fpr: float) -> float:
    """Return the offset that flags a new good image with at most this probability.

    Of m sorted scores of held-out good images, the k-th, ``k = floor(target_fpr (m +
    1))``: a new score that is exchangeable with them is below it with probability at
    most k / (m + 1) [1]_. If k = 0, it is the lowest, with a warning.
    """
    scores, rate = np.sort(np.asarray(calibration_scores)), float(target_fpr)
    m = len(scores)
    k = conformal_rank(m, rate)
    if k == 0:
        needed = math.ceil(min(1 / rate, 1e9) - 1e-9) - 1  # no overflow, as of 5e-324
        warn(
            f"target_fpr={rate:g} cannot be promised: {_good_images(m)} can promise "
            f"{100 / (m + 1):.3g} % at best. Calibrate with at least {needed} good "
            "images that were not trained on, or raise target_fpr."
        )
    return float(scores[max(k, 1) - 1])


def conformal_rank(m: int, target_fpr: float) -> int:
    """Return which of m sorted scores, counted from 1, promises `target_fpr`, or 0."""
    return min(math.floor(target_fpr * (m + 1) + 1e-9), m)  # 0.29 * 100 is below 29


def promised_fpr(m: int, target_fpr: float) -> float:
    """Return the false-alarm rate that `conformal_threshold` of m scores promises."""
    return max(float(target_fpr), 1 / (m + 1))


def target_threshold(
    calibration_scores: ArrayLike, target_fpr: float, is_cross: bool
) -> tuple[float, float]:
    """Return the offset for a rate, and the rate that it promises.

    Cross-fitted scores promise nothing, NaN.
    """
    scores, rate = np.asarray(calibration_scores), float(target_fpr)
    if is_cross:
        return robust_threshold(scores, rate), math.nan
    return conformal_threshold(scores, rate), promised_fpr(len(scores), rate)


def promise_in_words(detector: Any) -> str:
    """Say what the threshold of a fitted detector promises."""
    scores = detector.calibration_scores_
    return promise_of(detector.offset_, scores, detector.promised_fpr_)


def promise_of(offset: float, scores: Sequence[float], rate: float) -> str:
    """Say what an offset promises; NaN as its promised rate means nothing."""
    n_images = _good_images(len(scores))
    if not math.isnan(rate):
        words = f"at most {100 * rate:.3g} % of good images are flagged"
        is_least = math.isclose(rate, 1 / (len(scores) + 1))
        return f"{words}; {n_images} can promise no less" if is_least else words
    flagged = sum(1 for score in scores if score < offset)
    why = "none, as target_fpr did not set it on held-out images"
    return f"{why}; it flags {flagged} of {n_images}"


def _good_images(m: int) -> str:
    return "1 good image" if m == 1 else f"{m} good images"


def conformal_p_value(
    scores: ArrayLike, calibration_scores: ArrayLike
) -> NDArray[np.float64]:
    """Return conformal p-values of scores, (n,), in [1 / (m + 1), 1].

    ``p(s) = (1 + #{i : s_i <= s}) / (m + 1)`` with m scores s_i, Eq. 2 of [2]_.
    """
    calibration = np.sort(np.asarray(calibration_scores))
    n_not_above = np.searchsorted(calibration, np.asarray(scores), side="right")
    return (1.0 + n_not_above) / (len(calibration) + 1)


@dataclass(frozen=True)
class LabelledThreshold:
    """A threshold chosen on labelled images, and how it did on these very images."""

    offset: float  # scores below it are flagged
    metric: str  # that was optimised: "balanced_accuracy", "f1" or "cost"
    value: float  # of the metric; for "cost" the mean cost of an image
    detection_rate: float  # share of the anomalous images that are flagged
    false_alarm_rate: float  # share of the good images that are flagged
    detection_interval: tuple[float, float]  # of the two rates: 95 % Clopper-Pearson
    false_alarm_interval: tuple[float, float]


def labelled_threshold(
    scores: ArrayLike,
    y: ArrayLike,
    metric: str = "balanced_accuracy",
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> LabelledThreshold:
    """Return the threshold that does best by a metric on images labelled +1 and -1."""
    values, anomalous = np.asarray(scores), np.asarray(y) == -1
    n_bad, n_good = int(anomalous.sum()), int((~anomalous).sum())
    if not (n_bad and n_good):
        raise ValueError(
            f"y must hold both labels, +1 (good) and -1 (anomalous); got only "
            f"{'+1' if n_good else '-1'}. Add the others, or calibrate without y."
        )
    offsets = _candidate_offsets(values)
    hits = np.searchsorted(np.sort(values[anomalous]), offsets, side="left")
    alarms = np.searchsorted(np.sort(values[~anomalous]), offsets, side="left")
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


def check_metric(metric: str, cost_miss: float, cost_false_alarm: float) -> None:
    """Raise a ValueError unless `labelled_threshold` takes these."""
    costs = {"cost_miss": cost_miss, "cost_false_alarm": cost_false_alarm}
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}; got {metric!r}.")
    for name, cost in costs.items():
        if not 0 <= as_float(cost) < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0; got {cost!r}.")
    if cost_miss == cost_false_alarm == 0:
        raise ValueError("cost_miss or cost_false_alarm must be above 0; both are 0.")


def _candidate_offsets(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one offset for each way to split the scores: (n_distinct + 1,), rising."""
    levels = np.unique(scores)
    low, high = levels[:-1], levels[1:]
    middle = low / 2 + high / 2
    # Between adjacent floats the middle is the lower one, and would not flag it.
    middle = np.where(middle > low, middle, high)
    margin = (levels[-1] - levels[0]) / (2 * max(len(levels) - 1, 1))
    below = np.nextafter(levels[0] - margin, -np.inf)
    above = np.nextafter(levels[-1] + margin, np.inf)
    if levels[-1] < 0:  # scores from maps >= 0: a pixel of 0 is never flagged
        above = min(above, 0.0)
    return np.concatenate([[below], middle, [above]])


def _clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % confidence interval of a rate, k of n [3]_."""
    from scipy.stats import binomtest  # slow to import; `skad info` needs none

    interval = binomtest(k, n).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)
