"""The region of interest, as a bool array of the images' size."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import as_mask, refuse_mask
from skad.common.warnings import warn
from skad.images.decoding import read_image
from skad.images.inputs import Images
from skad.images.resizing import Size, resize


def check_roi(roi: Any, size: Size, source: Any = None) -> NDArray[np.bool_] | None:
    """Return a roi as a bool array of the images' (height, width); None stays None.

    `roi` is a mask (H, W) of bool or numbers, or the path of an image file. It may have
    the size of the files that `source`, an `ImageFolder`, resizes.
    """
    if roi is None:
        return None
    pixels = _pixels(roi)
    mask = as_mask(pixels)
    n_values = len(np.unique(pixels))
    if n_values > 2:
        warn(
            f"roi holds {n_values} different values: those above half of the largest, "
            f"{pixels.max() / 2:g}, count. Save it with two values, not as JPEG."
        )
    if mask.shape != size and {mask.shape} == set(getattr(source, "frame_sizes", ())):
        mask = resize(255 * mask.astype(np.uint8), size) >= 128
    if mask.shape != size:
        rule = f"roi must have the (height, width) of the images, {size}"
        raise ValueError(f"{rule}; got {mask.shape}. Resize it to their size.")
    if not mask.any():
        raise ValueError("roi must be True, or 255, where to look; no pixel is.")
    return mask


def roi_for(images: Images, roi: Any) -> NDArray[np.bool_] | None:
    """Return a roi as `check_roi`; refuse one for images of several sizes."""
    if images.format.any_size:
        rule = "roi is for images of one size, and X has several"
        raise ValueError(f"{rule}: resize them first, with skad.resize_image.")
    return check_roi(roi, images.format.image_shape[:2], images.source)


def _pixels(roi: Any) -> NDArray:
    if isinstance(roi, str | os.PathLike):
        return read_image(roi, gray=True)
    refuse_mask(roi, "roi")
    pixels = np.asarray(roi)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_mask = pixels.ndim == 2 and pixels.dtype.kind in "biuf" and pixels.size
    if not is_mask or not np.isfinite(pixels).all():
        rule = "roi must be an array (H, W) of bool or of two numbers, without NaN"
        got = f"type {pixels.dtype}, shape {pixels.shape}"
        raise ValueError(f"{rule}, or the path of an image file; got {got}.")
    return pixels
