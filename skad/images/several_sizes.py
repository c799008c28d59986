"""Images of several sizes, resized for the network; what comes out, as they were."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from skad.images.inputs import (
    Format,
    Images,
    as_array,
    as_image,
    as_images,
    is_lazy,
    is_scaled,
    refuse_channels_first,
    refuse_single_image,
)
from skad.images.resizing import Size, max_pool, resize


def have_several_sizes(X: Any) -> bool:
    """Tell whether X is a list, or an array of objects, of images of several sizes."""
    if not isinstance(X, list | tuple) and getattr(X, "dtype", None) != np.dtype("O"):
        return False
    try:
        shapes = {np.shape(image) for image in X}
    except ValueError:  # ragged
        return False
    return {*map(len, shapes)} <= {2, 3} and len({shape[:2] for shape in shapes}) > 1


def as_resized_images(X: Any, size: Size, fitted: Format | None = None) -> Images:
    """Check images as `as_images` does, but for their sizes, and resize them.

    A lazy sequence must have images of this size.
    """
    if is_lazy(X):
        return as_images(X, None, fitted)
    if not have_several_sizes(X):
        X = as_array(X)
        refuse_single_image(X, None)
    given = [as_image(item, i) for i, item in enumerate(X)]
    if fitted is None:
        refuse_channels_first(given[0].shape)
    images = as_images([_resized(image, size) for image in given], None, fitted)
    return replace(
        images,
        format=images.format._replace(any_size=True),
        dtype=given[0].dtype,
        given_shapes=[image.shape for image in given],
    )


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    is_image = image.ndim in (2, 3) and image.size  # others are refused as unlike
    return resize(image, size) if is_image else image


def maps_in_given_sizes(
    maps: Iterator[np.ndarray], images: Images
) -> Iterator[np.ndarray]:
    """Bring maps (k, h, w) of resized images to their given sizes, (1, H, W) each.

    Maxima stay, and with them scores and verdicts.
    """
    if images.given_shapes is None:
        yield from maps
        return
    for amap, shape in zip(chain.from_iterable(maps), images.given_shapes, strict=True):
        yield max_pool(amap, shape[:2])[None]  # 1, H, W


def rebuilt_in_given_sizes(
    rebuilt: Iterator[np.ndarray], images: Images
) -> Iterator[np.ndarray]:
    """Bring reconstructions (k, h, w, C) to the given shapes and type of the images."""
    if images.given_shapes is None:
        for batch in rebuilt:
            yield _typed(batch, images.dtype, images.format.shape)
        return
    each = chain.from_iterable(rebuilt)
    for one, shape in zip(each, images.given_shapes, strict=True):
        resized = resize(one, (shape[0], shape[1]))[None]  # 1, H, W, C
        yield _typed(resized, images.dtype, shape)


def _typed(batch: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Bring floats (k, H, W, C) from the network, in place, to a type and shape."""
    if is_scaled(dtype):
        batch *= np.iinfo(dtype).max
    if dtype.kind in "iu":
        np.round(batch, out=batch)
        np.clip(batch, np.iinfo(dtype).min, np.iinfo(dtype).max, out=batch)
    elif dtype.kind == "b":
        batch = batch > 0.5
    elif dtype.itemsize < batch.dtype.itemsize:
        np.clip(batch, np.finfo(dtype).min, np.finfo(dtype).max, out=batch)
    return batch.astype(dtype).reshape(len(batch), *shape)


def joined(parts: Sequence[np.ndarray], **options: Any) -> Any:
    """Return arrays (k, ...) as one (n, ...), or as a list of n where shapes differ."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts, **options)
    return [one for part in parts for one in part]
