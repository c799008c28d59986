"""Pictures with anomalies painted into them, as arrays.

Imports `common`.
"""

from skad.overlays.overlays import (
    boxes_image,
    heat_map_image,
    hottest_value,
    to_rgb_uint8,
)

__all__ = ["boxes_image", "heat_map_image", "hottest_value", "to_rgb_uint8"]
