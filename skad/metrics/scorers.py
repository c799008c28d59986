"""Metrics over labelled images, and a scorer for scikit-learn's searches."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.utils import check_array

from skad.common.checks import as_float, refuse_mask
from skad.common.labels import check_labels
from skad.metrics.localization import is_undefined

Scorer: TypeAlias = Callable[[Any, Any, ArrayLike], float]


def image_auroc_score(y: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve over images: 1 = good ones above all anomalous ones.

    y (n,) holds labels, +1 good and -1 anomalous; `scores` (n,) are finite, higher =
    more normal. NaN with an `UndefinedMetricWarning` if only one label occurs; a
    ValueError for other labels or scores.

    >>> image_auroc_score([1, 1, -1, -1], [-0.1, -0.3, -0.2, -0.9])
    0.75
    """
    labels, values = check_labels_and_scores(y, scores)
    good = labels == 1
    if is_undefined(values[good], values[~good], "The image AUROC", "image"):
        return math.nan
    return float(roc_auc_score(good, values))


def detection_rate_at_fpr(
    y: ArrayLike, scores: ArrayLike, max_fpr: float = 0.05
) -> float:
    """Share of the anomalous images found where few good ones are flagged.

    The highest true-positive rate on the ROC curve up to a false-positive rate of
    `max_fpr`, in [0, 1). y and `scores` are as in `image_auroc_score`.
    """
    if not 0 <= as_float(max_fpr) < 1:
        raise ValueError(
            f"max_fpr must be from 0 to below 1, as 0.05; got {max_fpr!r}."
        )
    labels, values = check_labels_and_scores(y, scores)
    good, bad = values[labels == 1], values[labels == -1]
    if is_undefined(good, bad, "The detection rate", "image"):
        return math.nan
    n_flagged = math.floor(max_fpr * len(good) + 1e-9)  # 0.29 * 100 is below 29
    # Flagged is what lies below: these n_flagged good images, or fewer if some tie.
    return float(np.mean(bad < np.sort(good)[n_flagged]))


def check_labels_and_scores(
    y: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Check labels of +1 and -1 and their scores, and return both as arrays."""
    refuse_mask(scores, "scores")
    values = check_array(
        np.ravel(scores), ensure_2d=False, dtype=np.float64, input_name="scores"
    )
    return check_labels(y, len(values)), values


#: Scorer: `image_auroc_score` of `score_samples`, from 0 to 1.
image_auroc_scorer: Scorer = make_scorer(
    image_auroc_score, response_method=("score_samples", "decision_function")
)
