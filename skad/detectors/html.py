"""What a notebook shows of a fitted detector, below scikit-learn's diagram."""

from html import escape
from typing import Any

from skad.threshold.conformal import promise_in_words


def fitted_html(detector: Any) -> str:
    """Return a table of the fitted state."""
    rows = {
        "threshold": f"{detector.pixel_threshold_:.6g}",
        "promise": promise_in_words(detector),
        "calibration images": len(detector.calibration_scores_),
        "images": " x ".join(map(str, detector.image_shape_in_)),
        "device": next(detector.network_.parameters()).device,
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table class='skad-fitted'>{cells}</table>"
