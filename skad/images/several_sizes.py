"""Images of several sizes: resized to one for the network, and what is found, back."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from skad.images.inputs import Format, Images, as_array, as_given, as_images, is_lazy
from skad.images.layout import (
    as_image,
    is_scaled,
    refuse_channels_first,
    refuse_single_image,
)
from skad.images.resizing import Size, resize_image


class Resized:
    """A lazy sequence of images, resized as they are read.

    Parameters
    ----------
    source : sequence of n arrays (H, W) or (H, W, C)
    size : (height, width)

    Attributes
    ----------
    shapes : dict of int to tuple
        Of those that were read, before they were resized.
    """

    def __init__(self, source: Any, size: Size) -> None:
        self.source = source
        self.size = size
        self.shapes: dict[int, tuple[int, ...]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def __getitem__(self, i: int) -> np.ndarray:
        """Return an image at the common size."""
        image = as_image(self.source[i], i)
        self.shapes[i] = image.shape
        try:
            return _resize(image, self.size)
        except ValueError as error:
            raise ValueError(f"image {i} of X: {error}") from None


def have_several_sizes(X: Any) -> bool:
    """Tell whether X is a list, or an array of objects, of images that differ in size.

    What cannot be images is left to the checks of images of one size.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind != "O":
        return False
    if not isinstance(X, (list, tuple, np.ndarray)):
        return False
    try:
        shapes = {np.shape(image) for image in X}
    except ValueError:  # ragged
        return False
    are_images = all(len(shape) in (2, 3) for shape in shapes)
    return are_images and len({shape[:2] for shape in shapes}) > 1


def as_resized_images(X: Any, size: Size, fitted: Format | None = None) -> Images:
    """Check images that may differ in size, and resize them as `resize_image` does.

    Parameters
    ----------
    X : sequence of n arrays (H, W) or (H, W, C), or lazy sequence
        Of one number type and channel count.
    size : (height, width)
    fitted : Format or None
        What the images must look like, but for their size, if that is known.

    Returns
    -------
    Images
        At the common size, with the shapes that they had.

    Raises
    ------
    ValueError
        If X cannot be images, or not these.
    """
    if not is_lazy(X):
        X = _as_sequence(X)
    resized = Resized(X, size)
    if len(X) and fitted is None:
        refuse_channels_first(np.shape(X[0]))
    images = as_images(resized, None, fitted)
    format = images.format._replace(any_size=True)
    dtype = as_image(X[0], 0).dtype
    if is_lazy(X):
        return Images(resized, format, dtype, resized.shapes)
    pixels = images.take(np.arange(len(images)))  # n, h, w, C
    pixels = pixels.reshape(len(images), *format.shape)
    return Images(pixels, format, dtype, resized.shapes)


def maps_in_given_sizes(
    maps: Iterator[np.ndarray], images: Images
) -> Iterator[np.ndarray]:
    """Bring maps (k, h, w) to the sizes that the images had, (1, H, W) each.

    A pixel has the largest value of those that it overlaps: maxima stay, and with them
    scores and verdicts.
    """
    for i, amap in enumerate(one for some in maps for one in some):
        height, width = images.given_shapes[i][:2]
        pixels = torch.from_numpy(amap)[None]  # 1, h, w
        yield F.adaptive_max_pool2d(pixels, (height, width)).numpy()


def rebuilt_in_given_sizes(
    rebuilt: Iterator[np.ndarray], images: Images
) -> Iterator[np.ndarray]:
    """Bring what a network rebuilt, (k, h, w, C), to the images' shapes and type."""
    for i, one in enumerate(one for some in rebuilt for one in some):
        shape = images.given_shapes[i]
        pixels = torch.from_numpy(one).permute(2, 0, 1)[None]  # 1, C, h, w
        pixels = F.interpolate(pixels, shape[:2], mode="bilinear", antialias=True)
        single = Images(None, images.format._replace(shape=shape), images.dtype)
        yield as_given(pixels.permute(0, 2, 3, 1).numpy(), single)  # 1, H, W, C


def joined(parts: Sequence[np.ndarray], **options: Any) -> Any:
    """Return arrays (k, …) as one (n, …), or as a list of n where shapes differ."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts, **options)
    return [one for part in parts for one in part]


def _as_sequence(X: Any) -> Any:
    """Return X as a list of images or an array of them."""
    if have_several_sizes(X):
        return list(X)
    X = as_array(X)
    refuse_single_image(X, None)
    return X


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    if image.dtype.kind == "f":
        image = image.astype(np.float32)
    elif not is_scaled(image.dtype):
        floats = _resize(image.astype(np.float32), size)
        return np.rint(floats).astype(image.dtype)
    if image.shape[2:] in ((), (3,)):
        return resize_image(image, size)
    planes = np.moveaxis(image, -1, 0)
    return np.stack([resize_image(plane, size) for plane in planes], -1)  # h, w, C
