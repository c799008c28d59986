"""What comes in: arrays, rows or lazy sequences, checked and seen as (n, H, W, C)."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array

from skad.common.checks import refuse_mask, whole_numbers
from skad.images.layout import (
    NO_MASK,
    as_image,
    is_scaled,
    refuse_channels_first,
    refuse_single_image,
)

_TOO_LARGE = np.float64(1e100)  # the squares of such numbers, added up, are infinite
_FIRST = "as image 0 has"
_KINDS = {  # as told in errors
    "integer": "integer (uint8 or uint16, scaled by their type)",
    "unscaled integer": "integer of a type that is not scaled (not uint8 or uint16)",
    "float": "float",
}


class Format(NamedTuple):
    """What an image looks like: what a detector remembers of its training images."""

    shape: tuple[int, ...]  # of one item as given: (H, W), (H, W, C) or (p,)
    image_shape: tuple[int, int, int]  # (H, W, C)
    kind: str  # "integer", "unscaled integer" or "float"
    any_size: bool = False  # they are resized to this shape's

    @property
    def is_row(self) -> bool:
        """Tell whether an item is a flattened image."""
        return len(self.shape) == 1

    @property
    def n_numbers(self) -> int:
        """Numbers in an image."""
        return math.prod(self.image_shape)


class Images:
    """n images of one format, in an array or a lazy sequence.

    Parameters
    ----------
    source : ndarray of shape (n, H, W), (n, H, W, C) or (n, p), or lazy sequence
        An array has been checked; a lazy sequence is checked as it is read.
    format : Format
    dtype : dtype
    given_shapes : mapping of int to tuple, default=None
        Shapes that the images had before they were resized to one, if they were.

    Attributes
    ----------
    watch : callable or None
        Shown all images that are taken, with their places.
    """

    def __init__(
        self, source: Any, format: Format, dtype: np.dtype, given_shapes: Any = None
    ) -> None:
        self.source = source
        self.format = format
        self.dtype = dtype
        self.given_shapes = given_shapes
        self.watch: Callable[[np.ndarray, np.ndarray], None] | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_lazy(self) -> bool:
        """Tell whether taking images may take long, as they are read on access."""
        return not isinstance(self.source, np.ndarray)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at these places, (k, H, W, C), C-contiguous and native."""
        if self.is_lazy:
            # Copies, for the next image may come in the same array.
            batch = np.stack([self._read(int(i)).copy() for i in indices])
        else:
            batch = self.source[indices]
        batch = batch.astype(batch.dtype.newbyteorder("="), order="C", copy=False)
        batch = batch.reshape(-1, *self.format.image_shape)
        if self.watch is not None:
            self.watch(indices, batch)
        return batch

    def subset(self, indices: np.ndarray) -> "Subset":
        """Return the images at these places, without reading them."""
        return Subset(self, np.asarray(indices))

    def _read(self, i: int) -> np.ndarray:
        image = as_image(self.source[i], i)
        try:
            image_shape = self.format.image_shape if self.format.is_row else None
            got = format_of(image.shape, image.dtype, image_shape)
            check_format(got, self.format, _FIRST)
            _check_type(image.dtype, self.dtype)
            check_finite(image[None], first=i)
        except ValueError as error:
            raise ValueError(f"image {i} of the sequence: {error}") from None
        return image.reshape(self.format.image_shape)


class Subset:
    """Some of the images of an `Images`, in a given order."""

    def __init__(self, images: Images, indices: np.ndarray) -> None:
        self.images = images
        self.indices = indices
        self.format = images.format
        self.is_lazy = images.is_lazy

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at these places of the subset, (k, H, W, C)."""
        return self.images.take(self.indices[indices])


def as_images(X: Any, image_shape: Any, fitted: Format | None = None) -> Images:
    """Check what a user passed as X.

    Parameters
    ----------
    X : array-like of shape (n, H, W), (n, H, W, C) or (n, p), or lazy sequence
    image_shape : (H, W), (H, W, C) or None
        What rows are flattened from; used where there is no `fitted`.
    fitted : Format or None
        What the images must look like, if that is known.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        If X cannot be images, or not these.
    """
    X = X if is_lazy(X) else as_array(X)
    if len(X) == 0:
        raise ValueError("X is an empty sequence: pass at least one image.")
    first = as_image(X[0], 0)
    if fitted is not None:
        fits = fitted.is_row and first.shape == fitted.shape
        image_shape = fitted.image_shape if fits else None
    else:
        if isinstance(X, np.ndarray):
            refuse_single_image(X, image_shape)
        refuse_channels_first(first.shape)
    got = format_of(first.shape, first.dtype, image_shape)
    if fitted is not None:
        check_format(got, fitted, "as in fit")
    if isinstance(X, np.ndarray):
        check_finite(X)
    return Images(X, got, first.dtype)


def as_given(batch: np.ndarray, images: Images) -> np.ndarray:
    """Bring images (k, H, W, C), floats on the scale of the network, to type and shape.

    Numbers are clipped to their type, and integers rounded, in place because the floats
    of large images take much memory; bool is what exceeds one half.
    """
    dtype = images.dtype
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if is_scaled(dtype):
            batch *= limits.max
        np.round(batch, out=batch)
        most = float(limits.max)
        if most > limits.max:  # rounded: of 64 bits, a float64 holds fewer
            most = np.nextafter(most, 0)
        np.clip(batch, limits.min, most, out=batch)
    if dtype.kind == "b":
        batch = batch > 0.5
    if dtype.kind == "f" and dtype.itemsize < batch.dtype.itemsize:
        np.clip(batch, np.finfo(dtype).min, np.finfo(dtype).max, out=batch)
    return batch.astype(dtype).reshape(len(batch), *images.format.shape)


def is_lazy(X: Any) -> bool:
    """Tell whether X is a sequence of images that are read on access."""
    indexable = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    plain = isinstance(X, (list, tuple, str, bytes, dict, np.ndarray))
    sparse = hasattr(X, "toarray")
    return indexable and not (plain or sparse or hasattr(X, "__array__"))


def format_of(shape: tuple[int, ...], dtype: np.dtype, image_shape: Any) -> Format:
    """Read off the format of one item: (H, W), (H, W, C) or (p,)."""
    if len(shape) == 1:
        full = _row_shape(shape[0], image_shape)
    elif image_shape is not None:
        raise ValueError(
            f"image_shape={image_shape!r} is only for 2-D input (flattened images); "
            f"each item of X has shape {shape}. Leave image_shape at None."
        )
    elif len(shape) in (2, 3):
        full = (shape[0], shape[1], 1 if len(shape) == 2 else shape[2])
    else:
        raise ValueError(
            "X must be images (n, H, W) or (n, H, W, C), or rows (n, p); each item of "
            f"X has {len(shape)} dimensions, shape {shape}. Reshape your data."
        )
    if min(full) < 1:
        raise ValueError(
            "Images need at least one pixel and one channel; each item of X has shape "
            f"{shape}."
        )
    return Format(shape, full, _kind_of(dtype))


def check_format(got: Format, fitted: Format, reference: str) -> None:
    """Raise a ValueError unless images look like others; a channel axis of 1 may go."""
    if got.image_shape != fitted.image_shape or got.is_row != fitted.is_row:
        raise ValueError(_shape_error(got.shape, fitted.shape, reference))
    _check_kind(got.kind, fitted.kind, reference)


def _check_kind(got: str, right: str, reference: str) -> None:
    if got != right:
        raise ValueError(
            f"Images must be of one number kind, {reference}: {_KINDS[right]}; "
            f"got {_KINDS[got]}. Convert them as the other images were."
        )


def check_finite(X: np.ndarray, first: int = 0) -> None:
    """Raise a ValueError that names the first image with NaN, infinity or the like.

    They are counted from `first` on.
    """
    if X.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        largest = max(X.max(), -X.min())
    if largest < _TOO_LARGE:  # not so where there is a NaN
        if largest > 0 and not np.float64(largest):
            raise ValueError(
                "Input X contains only values too small for float64: the largest is "
                f"{largest!s}. Multiply all images by the same number."
            )
        return
    for i, image in enumerate(X, first):
        if not (np.abs(image) < _TOO_LARGE).all():
            finite, nan = np.isfinite(image).all(), np.isnan(image).any()
            what = "values too large" if finite else "NaN" if nan else "infinity"
            raise ValueError(
                f"Input X contains {what} (image {i} is the first). Leave such images "
                "out or repair their pixels."
            )


def _kind_of(dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return "float"
    return "integer" if is_scaled(dtype) else "unscaled integer"


def _check_type(dtype: np.dtype, first: np.dtype) -> None:
    """Raise a ValueError where images of two types would be scaled alike."""
    same = dtype.newbyteorder("=") == first.newbyteorder("=")
    if not same and (is_scaled(dtype) or is_scaled(first)):
        raise ValueError(
            f"All images must have one number type, {first} as image 0 has; got "
            f"{dtype}. Convert them first."
        )


def as_array(X: Any) -> np.ndarray:
    """Turn lists and the like into an array; name the image that is at fault."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ValueError(
            f"X must be images; got a path, {X!r}. Pass skad.ImageFolder({X!r}), or "
            "skad.read_images of it."
        )
    refuse_mask(X, "X", NO_MASK)
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("O", "U", "S") and np.ndim(X) == 1:
        X = list(X)  # images or paths in an array of objects
    if isinstance(X, (list, tuple)):
        X = _stack(X)
    elif not hasattr(X, "__array__") and np.ndim(X) == 0:
        raise ValueError(
            f"X must be images; got {type(X).__name__}. Pass an array (n, H, W) or "
            "(n, H, W, C), a list of images or a skad.ImageFolder."
        )
    return check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False)


def _stack(X: Sequence) -> Any:
    """Stack a list of images or rows; other lists are left to scikit-learn's check."""
    if not len(X):
        raise ValueError("X is an empty list: pass at least one image.")
    if isinstance(X[0], (str, bytes, os.PathLike)):
        raise ValueError(
            f"X must be images; got paths, the first is {X[0]!r}. Pass "
            "skad.ImageFolder(paths), or put skad.ImageReader before the detector."
        )
    try:
        if np.ndim(X[0]) < 1:
            return X
    except ValueError:  # ragged: told below
        pass
    images = [as_image(image, i) for i, image in enumerate(X)]
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise ValueError(
                "All images of X must have one shape; image 0 has shape "
                f"{images[0].shape}, image {i} has {image.shape}. Resize them first, "
                "with skad.resize_image for instance, or set the detector's "
                "image_size, if it has one, before fit."
            )
        try:
            _check_type(image.dtype, images[0].dtype)
            if hasattr(X[i], "dtype"):  # plain numbers may be 1 beside 0.5
                _check_kind(_kind_of(image.dtype), _kind_of(images[0].dtype), _FIRST)
        except ValueError as error:
            raise ValueError(f"image {i} of X: {error}") from None
    return np.stack(images)


def _row_shape(p: int, image_shape: Any) -> tuple[int, int, int]:
    if image_shape is None:
        return (1, p, 1)
    sides = whole_numbers(image_shape)
    valid = len(sides) in (2, 3) and min(sides) > 0
    if not valid or math.prod(sides) != p:
        raise ValueError(
            "image_shape must be (H, W) or (H, W, C) with as many values as a row of X "
            f"has; got image_shape={image_shape!r} and rows of {p}."
        )
    height, width, channels = (*sides, 1)[:3]
    return height, width, channels


def _shape_error(got: tuple, fitted: tuple, reference: str) -> str:
    def name(shape: tuple) -> str:
        return f"{shape[0]} features" if len(shape) == 1 else f"shape {shape}"

    if len(got) == len(fitted) == 1:  # scikit-learn's words
        return (
            f"X has {got[0]} features, but skad is expecting "
            f"{fitted[0]} features as input, {reference}."
        )
    rule = f"Every image must have {name(fitted)}, {reference}; got {name(got)}."
    if len(got) == 3 and (*got[1:], got[0]) == fitted:
        return f"{rule} Channels come last: pass np.moveaxis(X, 1, -1)."
    if len(got) == len(fitted) - 1:
        if got == fitted[1:]:
            return f"{rule} The batch axis is missing: pass X[None] for one image."
        return f"{rule} The channel axis is missing, or the batch axis."
    return f"{rule} Resize the images or convert their channels."
