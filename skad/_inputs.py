"""What comes in: arrays, rows or lazy sequences, checked and seen as (n, H, W, C)."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

MOST_ROWS_OF_A_GLANCE = 16  # (H, W, 3) with H, W above this is one colour image


class Format(NamedTuple):
    """What an image looks like: what a detector remembers of its training images."""

    shape: tuple[int, ...]  # of one item as given: (H, W), (H, W, C) or (p,)
    image_shape: tuple[int, int, int]  # (H, W, C)
    kind: str  # "integer" or "float"


def is_lazy(X: Any) -> bool:
    """Tell whether X is a sequence of images that are read on access."""
    indexable = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    plain = isinstance(X, (list, tuple, str, bytes, dict, np.ndarray))
    return indexable and not plain and not hasattr(X, "__array__")


def kind_of(dtype: np.dtype) -> str:
    """Return "integer" (which bool is too) or "float"."""
    return "float" if dtype.kind == "f" else "integer"


class Images:
    """n images of one format, in an array or a lazy sequence.

    Parameters
    ----------
    source : ndarray of shape (n, H, W), (n, H, W, C) or (n, p), or lazy sequence
        Checked by `check_format`; a lazy sequence is checked as it is read.
    format : Format
    """

    def __init__(self, source: Any, format: Format) -> None:
        self.source = source
        self.format = format

    def __len__(self) -> int:
        return len(self.source)

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return np.asarray(self.source[0]).dtype

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at these places, (k, H, W, C), C-contiguous."""
        if isinstance(self.source, np.ndarray):
            batch = self.source[indices]
        else:
            batch = np.stack([self._read(int(i)) for i in indices])
        return np.ascontiguousarray(batch.reshape(-1, *self.format.image_shape))

    def subset(self, indices: np.ndarray) -> "Subset":
        """Return the images at these places, without reading them."""
        return Subset(self, np.asarray(indices))

    def _read(self, i: int) -> np.ndarray:
        image = np.asarray(self.source[i])
        try:
            check_format(format_of(image[None], None), self.format)
            check_finite(image[None])
        except ValueError as error:
            raise ValueError(f"image {i} of the sequence: {error}") from None
        return image


class Subset:
    """Some of the images of an `Images`, in a given order."""

    def __init__(self, images: Images, indices: np.ndarray) -> None:
        self.images = images
        self.indices = indices
        self.format = images.format

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at these places of the subset, (k, H, W, C)."""
        return self.images.take(self.indices[indices])


def as_array(X: Any) -> Any:
    """Turn lists into an array; name the first image that differs from the others."""
    if is_lazy(X) or hasattr(X, "__array__") or hasattr(X, "toarray"):
        return X
    if isinstance(X, (list, tuple)) and len(X) and np.ndim(_first(X)) >= 2:
        shapes = [np.shape(image) for image in X]
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(
                    "All images of X must have one shape; image 0 has shape "
                    f"{shapes[0]}, image {i} has {shape}. Resize them first, for "
                    "instance with skad.read_images(path, image_size=(height, width))."
                )
        return np.stack([np.asarray(image) for image in X])
    return X


def _first(X: Sequence) -> Any:
    try:
        return np.asarray(X[0])
    except ValueError:  # ragged inside: left to scikit-learn's check
        return None


def format_of(X: np.ndarray, image_shape: tuple | None) -> Format:
    """Read off the format of a checked array (n, H, W), (n, H, W, C) or (n, p)."""
    shape = X.shape[1:]
    if X.ndim == 2:
        full = _row_shape(X, image_shape)
    elif image_shape is not None:
        raise ValueError(
            f"image_shape={image_shape!r} is only for 2-D input (flattened images); "
            f"X has shape {X.shape}. Leave image_shape at None."
        )
    elif X.ndim == 3:
        _refuse_single_image(X)
        full = (*shape, 1)
    elif X.ndim == 4:
        full = shape
    else:
        raise ValueError(
            "X must be images (n, H, W) or (n, H, W, C), or rows (n, p); got "
            f"{X.ndim} dimensions, shape {X.shape}. Reshape your data."
        )
    if min(full) < 1:
        raise ValueError(
            f"Images need at least one pixel and one channel; X has shape {X.shape}."
        )
    return Format(shape, full, kind_of(X.dtype))


def _refuse_single_image(X: np.ndarray) -> None:
    big = min(X.shape[:2]) > MOST_ROWS_OF_A_GLANCE
    if big and X.shape[2] in (3, 4):
        raise ValueError(
            f"X of shape {X.shape} looks like one colour image without a batch axis. "
            "Pass X[None] for one image (or X[..., None] if these really are "
            f"{X.shape[0]} gray images {X.shape[2]} pixels wide)."
        )


def _row_shape(X: np.ndarray, image_shape: tuple | None) -> tuple[int, int, int]:
    if image_shape is None:
        if X.dtype in (np.uint8, np.uint16):
            raise ValueError(
                f"X of shape {X.shape} and type {X.dtype} looks like one gray image "
                "without a batch axis. Pass X[None] for one image, or image_shape="
                "(H, W) if each row is a flattened image."
            )
        return (1, X.shape[1], 1)
    sides = tuple(image_shape)
    valid = len(sides) in (2, 3) and all(
        isinstance(s, Integral) and int(s) > 0 for s in sides
    )
    if not valid or np.prod(sides) != X.shape[1]:
        raise ValueError(
            "image_shape must be (H, W) or (H, W, C) with as many values as a row of "
            f"X has; got image_shape={image_shape!r} and rows of {X.shape[1]}."
        )
    return (*sides, 1)[:3]


def check_format(got: Format, fitted: Format) -> None:
    """Raise a ValueError unless the images look like the fitted ones."""
    if got.shape != fitted.shape:
        raise ValueError(_shape_error(got.shape, fitted.shape))
    if got.kind != fitted.kind:
        raise ValueError(
            f"Images must be of the number kind that the detector was fitted on, "
            f"{fitted.kind}; got {got.kind}. Convert them as the training images were."
        )


def _shape_error(got: tuple, fitted: tuple) -> str:
    def name(shape: tuple) -> str:
        return f"{shape[0]} features" if len(shape) == 1 else f"shape {shape}"

    rule = f"Every image must have {name(fitted)}, as in fit; got {name(got)}."
    if len(got) == len(fitted) - 1 and len(fitted) > 1:
        if got == fitted[1:]:
            return f"{rule} The batch axis is missing: pass X[None] for one image."
        return f"{rule} The channel axis is missing, or the batch axis."
    return f"{rule} Resize the images or convert their channels."


def check_finite(X: np.ndarray) -> None:
    """Raise a ValueError that names the first image with NaN or infinity."""
    if X.dtype.kind != "f" or np.isfinite(X.sum(dtype=np.float64)):
        return
    bad = ~np.isfinite(X.reshape(len(X), -1)).all(axis=1)
    if bad.any():
        i = int(bad.argmax())
        what = "NaN" if np.isnan(X[i]).any() else "infinity"
        raise ValueError(
            f"Input X contains {what} (image {i} is the first of {bad.sum()}). "
            "Remove these images or repair their pixels."
        )
