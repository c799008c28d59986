"""What a threshold promises, in words; quick to import."""

import math
from typing import Any


def promise_in_words(detector: Any) -> str:
    """Say what the threshold of a detector promises.

    Parameters
    ----------
    detector : fitted detector of skad's
        Or anything with its attributes `promised_fpr_`, `offset_`,
        `calibration_scores_`, `contamination` and, where labels set the threshold,
        `labelled_threshold_`.

    Returns
    -------
    words : str
    """
    rate, scores = detector.promised_fpr_, detector.calibration_scores_
    if not math.isnan(rate):
        words = f"at most {100 * rate:.3g} % of good images are flagged"
        few = math.isclose(rate, 1 / (len(scores) + 1))
        return f"{words}; {images(len(scores))} can promise no less" if few else words
    if hasattr(detector, "labelled_threshold_"):
        reason = "labels set the threshold"
    elif detector.contamination != "auto":
        reason = "contamination, a share of the images, set the threshold"
    else:
        reason = "the threshold was set by hand"
    flagged = sum(1 for score in scores if score < detector.offset_)
    return f"none: {reason}; it flags {flagged} of {images(len(scores))}"


def images(m: int) -> str:
    """Say so many good images."""
    return "1 good image" if m == 1 else f"{m} good images"
