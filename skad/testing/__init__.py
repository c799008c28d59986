"""Checks that any image detector should pass, like scikit-learn's `check_estimator`.

Imports no other package of skad.
"""

from skad.testing.checks import check_image_detector, image_checks

__all__ = ["check_image_detector", "image_checks"]
