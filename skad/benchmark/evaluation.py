"""Figures of a detector on labelled images: what the demo and the benchmark report."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.metrics.intervals import wilson_interval
from skad.metrics.localization import ImageArrays, au_pro_score, pixel_auroc_score
from skad.metrics.scorers import image_auroc_score


class Trial(NamedTuple):
    """Scores of the test images, and how long they and the training took."""

    scores: NDArray[np.float64]  # (n_test,), higher = more normal
    training_seconds: float
    images_per_second: float  # by score_samples over the test images


def fit_and_score(detector: Any, train: Any, test: Any) -> Trial:
    """Fit a detector on good images and score others, by the clock.

    Parameters
    ----------
    detector : PatchAutoencoderDetector
        Anything with `fit(X)` and `score_samples(X)`; it is fitted in place.
    train, test : array-like of shape (n, H, W) or (n, H, W, C)
        The good images to learn from, and the images to score.

    Returns
    -------
    trial : Trial
        The scores and the times.
    """
    start = time.perf_counter()
    detector.fit(train)
    fitted = time.perf_counter()
    scores = detector.score_samples(test)
    scored = time.perf_counter()
    return Trial(scores, fitted - start, len(test) / (scored - fitted))


def figures_of_images(y: ArrayLike, scores: ArrayLike, offset: float) -> dict[str, Any]:
    """How well images are told apart, and how many are flagged at the threshold.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels: +1 good, -1 anomalous.
    scores : array-like of shape (n,)
        Scores, higher = more normal.
    offset : float
        Scores below it are flagged.

    Returns
    -------
    figures : dict
        `image_auroc`; the counts `n_good` and `n_defective`, and of these the
        flagged ones, `false_alarms` and `detections`; and the shares of the flagged,
        `false_alarm_rate` and `detection_rate`, NaN where there is no such image.
    """
    labels = np.asarray(y)
    flagged = np.asarray(scores) < offset
    counts = {
        "n_good": int((labels == 1).sum()),
        "n_defective": int((labels == -1).sum()),
        "false_alarms": int(flagged[labels == 1].sum()),
        "detections": int(flagged[labels == -1].sum()),
    }
    return {
        "image_auroc": image_auroc_score(labels, scores),
        **counts,
        "false_alarm_rate": _share(counts["false_alarms"], counts["n_good"]),
        "detection_rate": _share(counts["detections"], counts["n_defective"]),
    }


def figures_of_pixels(masks: ImageArrays | None, maps: ImageArrays) -> dict[str, float]:
    """How well pixels are told apart.

    Parameters
    ----------
    masks : sequence of n bool arrays of shape (H, W), or None
        The truth: True is anomalous. None where it is not known.
    maps : sequence of n arrays of shape (H, W)
        Anomaly maps, higher = worse.

    Returns
    -------
    figures : dict
        `pixel_auroc` and `au_pro`; NaN where the truth is not known.
    """
    if masks is None:
        return {"pixel_auroc": math.nan, "au_pro": math.nan}
    return {
        "pixel_auroc": pixel_auroc_score(masks, maps),
        "au_pro": au_pro_score(masks, maps),
    }


def figures_by_kind(
    kinds: ArrayLike,
    y: ArrayLike,
    scores: ArrayLike,
    offset: float,
    masks: Sequence[NDArray] | None,
    maps: NDArray | Sequence[NDArray],
) -> dict[str, dict[str, Any]]:
    """How well each kind of defect is told from the good images.

    Parameters
    ----------
    kinds : array-like of shape (n,), of str
        The kind of each image.
    y, scores, offset
        As for `figures_of_images`.
    masks, maps
        As for `figures_of_pixels`.

    Returns
    -------
    figures : dict of dict
        By the kinds of the anomalous images, in alphabetical order: `image_auroc`,
        `n_defective`, `detections`, `detection_rate`, `pixel_auroc` and `au_pro`, from
        the images of this kind and all good ones.
    """
    labels, values = np.asarray(y), np.asarray(scores)
    names = np.asarray(kinds)
    found = {}
    for name in np.unique(names[labels == -1]).tolist():
        chosen = np.flatnonzero((names == name) | (labels == 1)).tolist()
        images = figures_of_images(labels[chosen], values[chosen], offset)
        keys = ("image_auroc", "n_defective", "detections", "detection_rate")
        masks_of = None if masks is None else [masks[i] for i in chosen]
        maps_of = [] if masks is None else [maps[i] for i in chosen]
        pixels = figures_of_pixels(masks_of, maps_of)
        found[name] = {key: images[key] for key in keys} | pixels
    return found


def rate_in_words(successes: int, n: int) -> str:
    """Say a rate with its counts and its 95 % Wilson interval.

    Parameters
    ----------
    successes : int
        How often it happened, from 0 to `n`.
    n : int
        Number of trials.

    Returns
    -------
    words : str

    Examples
    --------
    >>> rate_in_words(9, 10)
    '9 of 10 = 90.0 % (95 % interval 59.6 % to 98.2 %)'
    """
    if n == 0:
        return "0 of 0"
    low, high = wilson_interval(successes, n)
    return (
        f"{successes} of {n} = {100 * successes / n:.1f} % "
        f"(95 % interval {100 * low:.1f} % to {100 * high:.1f} %)"
    )


def _share(successes: int, n: int) -> float:
    return successes / n if n else math.nan
