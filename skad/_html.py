"""What a notebook shows of a fitted detector, below scikit-learn's diagram."""

import math
from html import escape
from typing import Any

from skad._threshold import promised_fpr


def fitted_html(detector: Any) -> str:
    """Return a table of the fitted state, as HTML.

    Parameters
    ----------
    detector : fitted detector of skad's

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
    rate = promised_fpr(detector)
    if not math.isnan(rate):
        return f"at most {rate:.3g} of good images flagged"
    if hasattr(detector, "labelled_threshold_"):
        return (
            f"none: set by labels, for the best {detector.labelled_threshold_.metric}"
        )
    return f"none: {detector.contamination:.3g} of the training images flagged"
