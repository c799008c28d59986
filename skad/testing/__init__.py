"""Checks for anybody's image detector.

Imports nothing of skad's.
"""

from skad.testing.checks import (
    check_image_detector,
    image_checks,
    parametrize_with_image_checks,
)

__all__ = ["check_image_detector", "image_checks", "parametrize_with_image_checks"]
