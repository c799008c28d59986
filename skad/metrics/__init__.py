"""Metrics for anomaly detection, per image and per pixel, and a scorer.

Imports `common`.
"""

from skad.metrics.localization import au_pro_score, pixel_auroc_score
from skad.metrics.scorers import (
    detection_rate_at_fpr,
    image_auroc_score,
    image_auroc_scorer,
)

__all__ = [
    "au_pro_score",
    "detection_rate_at_fpr",
    "image_auroc_score",
    "image_auroc_scorer",
    "pixel_auroc_score",
]
