"""What a report adds to images: the evidence, and the nearest good image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from skad.explanations import GoodPatch, explain_images
from skad.inspection.regions import scaled_box
from skad.overlays import boxes_image, read_picture, to_rgb_uint8
from skad.report.pictures import thumbnail, thumbnail_size
from skad.report.reading import as_source
from skad.report.rendering import printable


def add_explanations(
    detector: Any, images: Sequence[tuple[Any, dict[str, Any]]], good: Any
) -> None:
    """Explain images, each an array or a path, with what the report says of it."""
    given = [image for image, _ in images]
    found = explain_images(detector, given, good, n_nearest=1)
    for (_, said), explanation in zip(images, found, strict=True):
        said["notes"] = printable(str(explanation))
        for patch in explanation.nearest:
            said["nearest"] = _picture(patch, good)


def _picture(patch: GoodPatch, good: Any) -> str:
    """Return a good image, with a box around the patch, as a data URI."""
    if patch.path is None:
        rgb = to_rgb_uint8(np.asarray(as_source(good)[patch.index]))
    else:
        rgb = read_picture(patch.path, thumbnail_size(patch.size))
    box = scaled_box(patch.bbox, patch.size, rgb.shape[:2])
    return thumbnail(boxes_image(rgb, [box]))
