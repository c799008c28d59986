"""What a notebook shows of a fitted detector, below scikit-learn's diagram."""

from html import escape
from typing import Any

from skad._threshold import conformal_rank


def fitted_html(detector: Any) -> str:
    """Return a table of the fitted state, as HTML.

    Parameters
    ----------
    detector : fitted PatchAutoencoderDetector

    Returns
    -------
    html : str
    """
    device = next(detector.network_.parameters()).device
    rows = {
        "threshold": f"{detector.pixel_threshold_:.6g}",
        "promise": _promise(detector),
        "calibration images": str(len(detector.calibration_scores_)),
        "images": " x ".join(map(str, detector.image_shape_in_)),
        "device": str(device),
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in rows.items()
    )
    return f"<table class='skad-fitted'>{cells}</table>"


def _promise(detector: Any) -> str:
    """Tell what the threshold promises; parameters may have been set after it was."""
    if hasattr(detector, "labelled_threshold_"):
        return (
            f"none: set by labels, for the best {detector.labelled_threshold_.metric}"
        )
    scores, n = detector.calibration_scores_, len(detector.calibration_scores_)
    rank = conformal_rank(n, detector.target_fpr)
    if detector.offset_ == scores[min(max(rank, 1), n) - 1]:
        share = max(detector.target_fpr, 1 / (n + 1))
    elif detector.contamination != "auto":
        return f"none: {detector.contamination:.3g} of the training images flagged"
    else:
        share = (1 + sum(scores < detector.offset_)) / (n + 1)
    return f"at most {share:.3g} of good images flagged"
