"""Images as users pass them: checked, and read in batches (k, H, W, C)."""

import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array

from skad.common.checks import refuse_mask, whole_numbers
from skad.common.torch_settings import in_order

_TOO_LARGE = np.float64(1e100)  # sums of squares of such numbers are infinite
_MOST_CHANNELS = 4  # of an array that is taken for one image, or for channels first …
_MOST_CHANNELS_BESIDE = 16  # … if its other sides are longer than this


class Format(NamedTuple):
    """Shape and number kind of images: what a detector keeps of its training images."""

    shape: tuple[int, ...]  # of one item as given: (H, W), (H, W, C) or (p,)
    image_shape: tuple[int, int, int]  # (H, W, C)
    kind: str  # "integer": uint8 or uint16; "unscaled integer"; "float"
    any_size: bool = False  # images are resized to this shape


@dataclass(eq=False)
class Images:
    """n images of one format: a checked array, or a lazy sequence, checked when read.

    What `measure` returns of every image that is taken is kept in `measured`.
    """

    source: Any
    format: Format
    dtype: np.dtype
    given_shapes: Sequence[tuple[int, ...]] | None = None  # before resizing
    places: np.ndarray | None = None  # in the source; None = all
    measure: Callable[[np.ndarray], Any] | None = None  # of an image (H, W, C)
    measured: dict[int, Any] = field(default_factory=dict)  # by place in the source

    def __len__(self) -> int:
        return len(self.source if self.places is None else self.places)

    @property
    def is_lazy(self) -> bool:
        """Tell whether images are read on access, which may take long."""
        return not isinstance(self.source, np.ndarray | list | tuple)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at these places, (k, H, W, C), C-contiguous and native."""
        places = indices if self.places is None else self.places[indices]
        if isinstance(self.source, np.ndarray):
            batch = self.source[places]
        else:
            batch = np.stack([self._read(int(i)) for i in places])
        batch = batch.astype(batch.dtype.newbyteorder("="), order="C", copy=False)
        batch = batch.reshape(-1, *self.format.image_shape)  # k, H, W, C
        if self.measure is not None:
            self.measured.update(zip(places, map(self.measure, batch), strict=True))
        return batch

    def subset(self, indices: np.ndarray) -> "Images":
        """Return the images at these places, without reading them."""
        places = np.arange(len(self.source)) if self.places is None else self.places
        return replace(self, places=places[indices])

    def _read(self, i: int) -> np.ndarray:
        image = as_image(self.source[i], i)
        _check_alike(image, f"image {i} of X", self.format, self.dtype)
        if image.dtype.kind == "f":
            check_finite(image[None], first=i)
        # A copy: the next image of a lazy sequence may come in the same array.
        return np.array(
            image.reshape(self.format.image_shape), copy=self.is_lazy or None
        )


def as_images(X: Any, image_shape: Any, fitted: Format | None = None) -> Images:
    """Check X: (n, H, W), (n, H, W, C), (n, p) or a lazy sequence of such items.

    `image_shape` is what rows were flattened from; `fitted`, if known, what all images
    must look like.
    """
    are_numbers = type(X) is np.ndarray and X.dtype.kind in "biuf"
    if not ((are_numbers and X.ndim > 1 and X.size) or is_lazy(X)):
        X = as_array(X)
    if len(X) == 0:
        raise ValueError("X is an empty sequence: pass at least one image.")
    is_array = isinstance(X, np.ndarray)
    first = X[0] if is_array else as_image(X[0], 0)
    if fitted is None:
        format = _new_format(X, first, image_shape)
    else:
        _check_alike(first, "Every image", fitted)
        format = fitted._replace(shape=first.shape, any_size=False)
    if is_array and X.dtype.kind == "f":
        check_finite(X)
    return Images(X, format, first.dtype)


def _new_format(X: Any, first: np.ndarray, image_shape: Any) -> Format:
    """Return the format of X by its first image; refuse what looks like one image."""
    if isinstance(X, np.ndarray):
        refuse_single_image(X, image_shape)
    return format_of(first.shape, first.dtype, image_shape)


def is_lazy(X: Any) -> bool:
    """Tell whether X is a sequence of images that are read on access."""
    indexable = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    plain = isinstance(X, (list, tuple, str, bytes, dict))
    return indexable and not (plain or hasattr(X, "toarray") or hasattr(X, "__array__"))


def frame_sizes(X: Any) -> Sequence[tuple[int, int]] | None:
    """Return the sizes of the files of an `ImageFolder`, or of what is like one."""
    return getattr(X, "frame_sizes", None) if is_lazy(X) else None


def as_array(X: Any) -> np.ndarray:
    """Return an array-like as an array of real numbers, of any shape."""
    refuse_mask(X, "X", "; set the detector's roi to leave pixels out")
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind in ("O", "U", "S") and np.ndim(X) == 1:
        X = list(X)  # images or paths in an array of objects
    is_list = isinstance(X, list | tuple)
    if is_list and not X:
        raise ValueError("X is an empty list: pass at least one image.")
    item = X[0] if is_list else X
    is_path = isinstance(item, str | bytes | os.PathLike)
    if is_path or not (is_list or hasattr(X, "__array__") or np.ndim(X)):
        raise ValueError(
            f"X must be images; got {'a path' if is_path else type(X).__name__}. Pass "
            "an array (n, H, W) or (n, H, W, C), a list of images or, for files, a "
            "skad.ImageFolder."
        )
    if is_list:
        X = _stack(X)
    return check_array(X, dtype="numeric", allow_nd=True, ensure_all_finite=False)


def _stack(X: Any) -> Any:
    """Stack images or rows; leave a list of numbers to the check of scikit-learn."""
    first = as_image(X[0], 0)
    if first.ndim == 0:
        return X
    images = Images(X, format_of(first.shape, first.dtype, None), first.dtype)
    return images.take(np.arange(len(X))).reshape(len(X), *first.shape)


def as_image(item: Any, i: int) -> np.ndarray:
    """Return one image of X, or a row, as an array of real numbers."""
    refuse_mask(item, f"image {i} of X")
    has_label = isinstance(item, tuple) and getattr(next(iter(item), 0), "ndim", 0) > 1
    has_palette = getattr(item, "mode", None) in ("P", "PA")
    try:
        image = np.asarray(item)
    except ValueError:  # ragged
        image = np.empty(0, object)
    if has_label or has_palette or image.dtype.kind not in "biuf":
        raise ValueError(
            f"image {i} of X must be an array (H, W) or (H, W, C) of real numbers; got "
            f"{type(item).__name__} of {image.dtype}. Leave labels out, and call "
            'image.convert("RGB") where there is a palette.'
        )
    return image


def refuse_single_image(X: np.ndarray, image_shape: Any) -> None:
    """Raise a ValueError where X looks like one image without a batch axis."""
    is_gray = X.ndim == 2 and image_shape is None and is_scaled(X.dtype)
    if is_gray or (X.ndim == 3 and _has_channels(X.shape[:2], X.shape[2])):
        raise ValueError(
            f"X of shape {X.shape} looks like one image without a batch axis: pass "
            "X[None]; X[..., None] for narrow gray images; image_shape for rows."
        )


def refuse_channels_first(shape: tuple[int, ...]) -> None:
    """Raise a ValueError where an image looks like (C, H, W)."""
    if len(shape) == 3 and _has_channels(shape[1:], shape[0]):
        rule = f"Images of shape {shape} look as if channels came first"
        raise ValueError(f"{rule}. Pass (H, W, C): np.moveaxis(X, 1, -1).")


def _has_channels(size: tuple[int, ...], n: int) -> bool:
    return min(size) > _MOST_CHANNELS_BESIDE and n <= _MOST_CHANNELS


def format_of(shape: tuple[int, ...], dtype: np.dtype, image_shape: Any) -> Format:
    """Return the format of an item: (H, W), (H, W, C), or (p,) from `image_shape`."""
    refuse_channels_first(shape)
    if image_shape is not None:
        sides = whole_numbers(image_shape)
        is_shape = len(sides) in (2, 3) and min(sides) > 0
        if not is_shape or shape != (math.prod(sides),):
            raise ValueError(
                "image_shape is for rows (flattened images) alone, and must be (H, W) "
                f"or (H, W, C) with as many values; got image_shape={image_shape!r} "
                f"and items of shape {shape}."
            )
    else:
        sides = (1, *shape) if len(shape) == 1 else shape
    if len(sides) not in (2, 3) or min(sides) < 1:
        rule = "X must be images (n, H, W) or (n, H, W, C), or rows (n, p), with at "
        rule += "least one pixel and one channel"
        raise ValueError(f"{rule}; each item of X has shape {shape}.")
    height, width, channels = _with_channels(sides)
    return Format(shape, (height, width, channels), _kind_of(dtype))


def _with_channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1) if len(shape) == 2 else shape


def is_scaled(dtype: np.dtype) -> bool:
    """Tell whether numbers are scaled by what their type can hold."""
    return dtype.kind == "u" and dtype.itemsize <= 2


def _kind_of(dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return "float"
    return "integer" if is_scaled(dtype) else "unscaled integer"


def _check_alike(
    image: np.ndarray, name: str, format: Format, dtype: np.dtype | None = None
) -> None:
    """Raise unless an image is like those of the fit or, given `dtype`, image 0."""
    found, wanted = _kind_of(image.dtype), format.kind
    if dtype is not None and is_scaled(dtype):  # one array cannot hold 8 and 16 bits
        found, wanted = image.dtype.name, dtype.name
    if _with_channels(image.shape) != _with_channels(format.shape) or found != wanted:
        raise _unlike(image, name, format.shape, wanted)


def _unlike(
    image: np.ndarray, name: str, shape: tuple[int, ...], number_type: str
) -> ValueError:
    """Say in what an image is unlike those of the fit or image 0."""
    got = image.shape
    if got != shape and len(got) == len(shape) == 1:  # scikit-learn's words
        rule = f"X has {got[0]} features, but skad is expecting {shape[0]} features as "
        return ValueError(f"{rule}input, as in fit or as image 0 has.")
    return ValueError(
        f"{name} must have shape {shape} and number type {number_type}, as those of "
        f"the fit or image 0 have; got shape {got} of {image.dtype}. Pass X[None] for "
        "one image without a batch axis, and channels last; convert channels and "
        "numbers as the others were; resize with skad.resize_image or, before fit, by "
        "image_size."
    )


def check_finite(X: np.ndarray, first: int = 0) -> None:
    """Raise for floats that are not finite; `first` is the number of X[0]."""
    for i, image in enumerate(X, first):
        if not (np.abs(image) < _TOO_LARGE).all():
            what = "NaN" if np.isnan(image).any() else "infinity or values above 1e100"
            which = f"image {i} is the first"
            raise ValueError(
                f"Input X contains {what} ({which}). Leave such images out."
            )


def read_ahead(
    read: Callable[[Any], Any], items: Iterable[Any]
) -> Generator[Any, None, None]:
    """Yield what is read of each item, in a thread that is one item ahead."""
    with ThreadPoolExecutor(1, "skad-read-ahead") as pool:
        yield from in_order(read, items, pool, 1)


def batches_of(
    images: Images, places: Iterable[np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """Yield the images (k, H, W, C) at each of some arrays (k,) of places."""
    if images.is_lazy:
        return read_ahead(images.take, places)
    return (images.take(indices) for indices in places)
