"""How the numbers of images lie in arrays: what is one image, and what is none."""

from typing import Any

import numpy as np

from skad.common.checks import refuse_mask

NO_MASK = "; what never counts is the detector's roi"
_MOST_ROWS_OF_A_GLANCE = 16  # (H, W, C) with H and W above this is one image …
_MOST_CHANNELS = 4  # … if it has no more than these: else C is the width of gray ones


def as_image(item: Any, i: int) -> np.ndarray:
    """Return one image of X, or a row, as an array of real numbers."""
    refuse_mask(item, f"image {i} of X", NO_MASK)
    if isinstance(item, tuple) and getattr(next(iter(item), 0), "ndim", 0) > 1:
        raise ValueError(
            f"image {i} of X must be an array (H, W) or (H, W, C); got a tuple of "
            f"{len(item)}, as data sets for training hold. Pass the images alone."
        )
    if getattr(item, "mode", None) in ("P", "PA"):
        raise ValueError(
            f"image {i} of X is a Pillow image whose numbers are places in a palette. "
            'Convert it: image.convert("RGB"), as files are read.'
        )
    try:
        image = np.asarray(item)
    except ValueError:
        raise ValueError(
            f"image {i} of X is no array: its parts differ in shape. Pass every image "
            "as an array (H, W) or (H, W, C)."
        ) from None
    if image.dtype.kind not in "biuf":
        raise ValueError(
            f"image {i} of X must hold real numbers; got {type(item).__name__} of type "
            f"{image.dtype}. Pass every image as an array (H, W) or (H, W, C)."
        )
    return image


def refuse_single_image(X: np.ndarray, image_shape: Any) -> None:
    """Raise a ValueError where an array looks like one image."""
    if X.ndim == 2 and image_shape is None and is_scaled(X.dtype):
        raise ValueError(
            f"X of shape {X.shape} and type {X.dtype} looks like one gray image "
            "without a batch axis. Pass X[None] for one image, or image_shape=(H, W) "
            "if each row is a flattened image."
        )
    big = X.ndim == 3 and min(X.shape[:2]) > _MOST_ROWS_OF_A_GLANCE
    if big and X.shape[2] <= _MOST_CHANNELS:
        raise ValueError(
            f"X of shape {X.shape} looks like one image without a batch axis. "
            "Pass X[None] for one image (or X[..., None] if these really are "
            f"{X.shape[0]} gray images {X.shape[2]} pixels wide)."
        )


def refuse_channels_first(shape: tuple[int, ...]) -> None:
    """Raise a ValueError where an image looks like (C, H, W)."""
    if (
        len(shape) == 3
        and shape[0] <= _MOST_CHANNELS
        and min(shape[1:]) > _MOST_ROWS_OF_A_GLANCE
    ):
        raise ValueError(
            f"Images of shape {shape} look as if channels came first. Pass (H, W, C): "
            "np.moveaxis(X, 1, -1), or np.moveaxis(image, 0, -1) of each. If they "
            f"really have {shape[0]} rows and {shape[2]} channels, pass them as rows, "
            f"with image_shape={shape}."
        )


def is_scaled(dtype: np.dtype) -> bool:
    """Tell whether numbers are scaled by what their type can hold."""
    return dtype.kind == "u" and dtype.itemsize <= 2
