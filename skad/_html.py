"""What a notebook shows of a fitted detector, below scikit-learn's diagram."""

from html import escape
from typing import Any


def fitted_html(detector: Any) -> str:
    """Return a table of the fitted state, as HTML.

    Parameters
    ----------
    detector : fitted PatchAutoencoderDetector

    Returns
    -------
    html : str
    """
    n = len(detector.calibration_scores_)
    if hasattr(detector, "labelled_threshold_"):
        promise = (
            f"none: set by labels, for the best {detector.labelled_threshold_.metric}"
        )
    elif detector.contamination != "auto":
        promise = f"none: {detector.contamination:.3g} of the training images flagged"
    else:
        least = 1 / (n + 1)
        promise = (
            f"at most {max(detector.target_fpr, least):.3g} of good images flagged"
        )
    device = next(detector.network_.parameters()).device
    rows = {
        "threshold": f"{detector.pixel_threshold_:.6g}",
        "promise": promise,
        "calibration images": str(n),
        "images": " x ".join(map(str, detector.image_shape_in_)),
        "device": str(device),
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in rows.items()
    )
    return f"<table class='skad-fitted'>{cells}</table>"
