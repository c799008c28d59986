"""Metrics and scorers for anomaly detection, per image and per pixel.

Imports `common`.
"""

from skad.metrics.intervals import wilson_interval
from skad.metrics.localization import au_pro_score, pixel_auroc_score, pro_curve
from skad.metrics.scorers import (
    detection_rate_at_fpr,
    image_auroc_score,
    image_auroc_scorer,
    mean_cost,
)

__all__ = [
    "au_pro_score",
    "detection_rate_at_fpr",
    "image_auroc_score",
    "image_auroc_scorer",
    "mean_cost",
    "pixel_auroc_score",
    "pro_curve",
    "wilson_interval",
]
