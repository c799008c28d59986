"""Where to look: the mask that a user passes as roi, as a bool array."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import as_mask, has_more_than_two_values, refuse_mask
from skad.common.warnings import warn
from skad.images.decoding import read_image
from skad.images.resizing import Size, resize_image


def check_roi(roi: Any, size: Size, source: Any = None) -> NDArray[np.bool_] | None:
    """Return a roi as a bool array of the images' size; None stays None.

    Parameters
    ----------
    roi : None, array-like of shape (H, W) or path of an image file
        bool, or numbers: of two values the larger one says where to look.
    size : (height, width)
        Of the images.
    source : object, default=None
        What the images come from. Where it is an `ImageFolder` that resizes its files,
        a roi of the files' size is resized likewise.

    Returns
    -------
    ndarray of bool of shape (height, width), or None

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no mask, has another size, or leaves nothing to look at.

    Warns
    -----
    UserWarning
        Where it has more than two values: those above half of the largest count.
    """
    if roi is None:
        return None
    pixels = _pixels(roi)
    if has_more_than_two_values(pixels):
        warn(
            f"roi holds {len(np.unique(pixels))} different values: pixels above half "
            f"of the largest, {pixels.max() / 2:g}, are looked at. Save it with two "
            "values, as PNG and not as JPEG."
        )
    inside = as_mask(pixels)
    if inside.shape != size and inside.shape == _size_of_frames(source):
        inside = resize_image(255 * inside.astype(np.uint8), size) >= 128
    if inside.shape != size:
        raise ValueError(
            f"roi must have the size of the images, {_in_words(size)}; got "
            f"{_in_words(inside.shape)}. Draw the mask on one of these images, or "
            "resize it to their size."
        )
    if not inside.any():
        raise ValueError(
            "roi must leave something to look at; none of its pixels counts. Pass a "
            "mask that is True, or 255, where to look."
        )
    return inside


def roi_for(images: Any, roi: Any) -> NDArray[np.bool_] | None:
    """Return a roi as `check_roi`, for `Images`; refuse one for several sizes."""
    if images.format.any_size and roi is not None:
        raise ValueError(
            "roi is for images of one size, and X has several. Resize the images "
            "first, with skad.resize_image, or leave roi at None."
        )
    return check_roi(roi, images.format.image_shape[:2], images.source)


def _pixels(roi: Any) -> np.ndarray:
    """Return the mask as it was given, (H, W)."""
    if isinstance(roi, str | os.PathLike):
        return read_image(roi, gray=True)
    refuse_mask(roi, "roi")
    pixels = np.asarray(roi)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "biuf" or not pixels.size:
        raise ValueError(
            "roi must be an array (H, W) of bool or of two numbers, 0 and 255 for "
            f"instance, or the path of an image file; got type {pixels.dtype}, shape "
            f"{pixels.shape}."
        )
    if not np.isfinite(pixels).all():
        raise ValueError("roi must hold finite numbers; got NaN or infinity.")
    return pixels


def _size_of_frames(source: Any) -> Size | None:
    """Return the size of all images before a lazy sequence resizes them, if it does."""
    sizes = set(getattr(source, "frame_sizes", ()))
    return sizes.pop() if len(sizes) == 1 else None


def _in_words(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]} pixels (height x width)"
