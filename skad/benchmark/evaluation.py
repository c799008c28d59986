"""Figures of a detector on labelled images: what the demo and the benchmark report."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from skad.metrics.localization import ImageArrays, au_pro_score, pixel_auroc_score
from skad.metrics.scorers import image_auroc_score


def figures_of_images(y: ArrayLike, scores: ArrayLike, offset: float) -> dict[str, Any]:
    """Return the image AUROC, and how many images a threshold flags.

    `y` (n,) is +1 good and -1 anomalous, `scores` (n,) are higher = more normal, and
    those below `offset` are flagged. The keys are "image_auroc", "n_good",
    "n_defective", "false_alarms", "detections", "false_alarm_rate", "detection_rate".
    What needs good or anomalous images is NaN without them, the AUROC with an
    `UndefinedMetricWarning`.
    """
    good, flagged = np.asarray(y) == 1, np.asarray(scores) < offset
    n_good, n_defective = int(good.sum()), int((~good).sum())
    false_alarms, detections = int(flagged[good].sum()), int(flagged[~good].sum())
    return {
        "image_auroc": image_auroc_score(y, scores),
        "n_good": n_good,
        "n_defective": n_defective,
        "false_alarms": false_alarms,
        "detections": detections,
        "false_alarm_rate": false_alarms / n_good if n_good else math.nan,
        "detection_rate": detections / n_defective if n_defective else math.nan,
    }


def figures_of_pixels(masks: ImageArrays | None, maps: ImageArrays) -> dict[str, float]:
    """Return "pixel_auroc" and "au_pro" of anomaly maps; both are NaN without masks.

    Masks are True where an image is defective, maps higher = more anomalous; both are
    arrays (n, H, W) or sequences of n arrays (H, W).
    """
    if masks is None:
        return {"pixel_auroc": math.nan, "au_pro": math.nan}
    return {
        "pixel_auroc": pixel_auroc_score(masks, maps),
        "au_pro": au_pro_score(masks, maps),
    }


def rate_in_words(successes: int, n: int) -> str:
    """Say a rate with its counts and its 95 % Wilson interval.

    >>> rate_in_words(9, 10)
    '9 of 10 = 90.0 % (95 % interval 59.6 % to 98.2 %)'
    """
    if n == 0:
        return "0 of 0"
    low, high = binomtest(successes, n).proportion_ci(method="wilson")
    return (
        f"{successes} of {n} = {100 * successes / n:.1f} % "
        f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %)"
    )
