"""Read image files into arrays: one file, a whole folder, or lazily on access."""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from skad._decoding import (
    Frame,
    PathLike,
    Seen,
    Size,
    check_bool,
    check_fits,
    check_options,
    decode_or_say_why,
    read_frame,
    read_image,
    resize_image,
)
from skad._finding import find_images
from skad._warnings import warn

__all__ = [
    "ImageFolder",
    "ImageReader",
    "find_images",
    "read_image",
    "read_images",
    "resize_image",
]

_WORKERS = min(4, os.cpu_count() or 1)
_AT_ONCE = 4 * _WORKERS  # decoded images that wait in memory, at most
_LISTED = 10  # files that one warning or error spells out


def read_images(
    path: PathLike | Iterable[PathLike],
    image_size: int | Size | None = None,
    gray: bool = False,
) -> NDArray[Any]:
    """Read a folder of images, or a list of files, into one array.

    Parameters
    ----------
    path : path or iterable of paths
        What `find_images` takes.
    image_size : int or (height, width), default=None
        As in `read_image`.
    gray : bool, default=False
        As in `read_image`.

    Returns
    -------
    ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
        dtype as in `read_image`. Files that cannot be read are named in a warning
        and left out; where labels must keep step, use `ImageFolder` and its `paths`.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If no file can be read, or the images differ in size, colour or bit depth.
    """
    size = check_options(image_size, gray)
    survey = _survey(find_images(path), size, gray, keep=True)
    _warn_left_out(survey.left_out)
    return survey.images


class ImageFolder:
    """A lazy sequence of images that decodes a file when it is asked for.

    Only what is indexed is in memory, so a folder larger than the memory can be
    fitted and scored: a detector holds those batches that it computes with, and one
    that a thread reads meanwhile. An int as index gives an image; a slice, a list of
    ints or a bool mask gives another `ImageFolder`.

    Parameters
    ----------
    source : path or iterable of paths
        What `find_images` takes.
    image_size : int or (height, width), default=None
        As in `read_image`.
    gray : bool, default=False
        As in `read_image`.
    check : bool, default=True
        Decode every file once now: those that cannot be read are named in a warning
        and left out, and images that do not fit together are an error. False trusts
        the first image; a file that cannot be read or differs from it is then an
        error when it is asked for.

    Attributes
    ----------
    paths : list of pathlib.Path
        The files, in order: labels belong beside these.
    folder : pathlib.Path or None
        The source, if it is a folder.
    left_out : list of (pathlib.Path, str)
        The files of the source that could not be read, with the reasons.
    frame_sizes : list of (height, width)
        Of each file, upright, before `image_size` resizes it: the pixels that the
        regions of `inspect` are in.

    Raises
    ------
    FileNotFoundError, ValueError
        As in `read_images`.

    Notes
    -----
    A pickle holds paths, not pixels, and with each path the file's size and time of
    last change when the folder was made. So what a ``joblib.Memory`` keeps is not
    taken for a folder that is made after a file was overwritten.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from skad import ImageFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a", "b", "c"):
    ...         Image.new("L", (40, 30)).save(f"{folder}/{name}.png")
    ...     images = ImageFolder(folder, image_size=20)
    ...     images.shape, images[0].shape, len(images[1:])
    ((3, 20, 20), (20, 20), 2)
    """

    def __init__(
        self,
        source: PathLike | Iterable[PathLike],
        *,
        image_size: int | Size | None = None,
        gray: bool = False,
        check: bool = True,
    ) -> None:
        self.image_size = check_options(image_size, gray)
        self.gray = bool(gray)
        paths = find_images(source)
        self.folder: Path | None = None
        if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
            self.folder = Path(source)
        check = check_bool("check", check)
        survey = _survey(paths if check else paths[:1], self.image_size, self.gray)
        self.paths = survey.paths if check else paths
        self.left_out = survey.left_out
        self._first = survey.first
        self._sizes = survey.sizes  # and of each file that is read later
        _warn_left_out(self.left_out)
        self._stamps = [_stamp(path) for path in self.paths]  # for joblib.hash

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_images, height, width) or (n_images, height, width, 3)."""
        return (len(self.paths), *self._first.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of every image, as in `read_image`."""
        return self._first.dtype

    @property
    def ndim(self) -> int:
        """Number of axes: 3 for gray images, 4 for colour."""
        return len(self.shape)

    @property
    def frame_sizes(self) -> list[Size]:
        """(height, width) of each file before `image_size` resizes it, upright.

        `inspect` and `anomaly_regions` give regions in these pixels. With
        ``check=False``, files that were not read yet are read for it.
        """
        return [self._sizes.get(path) or self._read(path).size for path in self.paths]

    def _read(self, path: Path) -> Frame:
        frame = read_frame(path, self.image_size, self.gray)
        self._sizes[path] = frame.size
        return frame

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was noted in reading: joblib.hash must not depend on it."""
        return {**vars(self), "_sizes": {}}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, key: Any) -> Any:
        """Return an image for an int; for a slice, int array or bool mask a folder."""
        try:
            places = np.arange(len(self))[key]
            if places.ndim > 1:
                raise IndexError(f"got {key!r}")
        except IndexError as error:
            raise IndexError(
                f"an ImageFolder of {len(self)} images is indexed by an int, a slice, "
                f"a list of ints or a bool mask of that length: {error}"
            ) from None
        if places.ndim == 0:
            path = self.paths[places]
            image = self._read(path).image
            check_fits(self._first, Seen(path, image.shape, image.dtype))
            return image
        subset = copy.copy(self)
        subset._sizes = self._sizes
        subset.paths = [self.paths[place] for place in places]
        subset._stamps = [self._stamps[place] for place in places]
        return subset

    def __repr__(self) -> str:
        """Say how many images of which size and type there are."""
        where = f" from {self.paths[0].parent}" if self.paths else ""
        return f"<ImageFolder: {len(self)} images, {self._first}{where}>"


class ImageReader(TransformerMixin, BaseEstimator):
    """Transformer that reads images: paths in, one array out, for a ``Pipeline``.

    It is stateless: `fit` checks the parameters and learns nothing.

    Parameters
    ----------
    image_size : int or (height, width), default=None
        As in `read_image`.
    gray : bool, default=False
        As in `read_image`.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from skad import ImageReader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/part.png")
    ...     ImageReader(image_size=16).fit_transform([f"{folder}/part.png"]).shape
    (1, 16, 16, 3)
    """

    def __init__(
        self, image_size: int | Size | None = None, gray: bool = False
    ) -> None:
        self.image_size = image_size
        self.gray = gray

    def fit(self, X: Sequence[PathLike], y: Any = None) -> Self:
        """Check the parameters; X and y are ignored and no file is opened."""
        check_options(self.image_size, self.gray)
        return self

    def transform(self, X: Sequence[PathLike]) -> NDArray[Any]:
        """Read the images.

        Parameters
        ----------
        X : sequence of paths, length n_images, or table of shape (n_images, 1)
            Files, not a folder.

        Returns
        -------
        ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
            dtype as in `read_image`; one image for each path, in order.

        Raises
        ------
        FileNotFoundError, ValueError
            As in `read_images`, and for any file that cannot be read: nothing is
            left out here, since labels would lose step.
        """
        size = check_options(self.image_size, self.gray)
        if isinstance(X, str | os.PathLike):
            raise ValueError(
                f"X must be a sequence of paths; got the single path {X!r}: pass "
                "[path], or skad.images.find_images(folder)"
            )
        survey = _survey(find_images(X), size, self.gray, keep=True)
        if survey.left_out:
            raise ValueError(_list_unreadable(survey.left_out))
        return survey.images

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn: paths in, no fit needed."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


class _Survey(NamedTuple):
    paths: list[Path]  # of the files that could be read
    first: Seen  # of these
    left_out: list[tuple[Path, str]]  # the others, with the reasons
    images: NDArray[Any]  # empty unless they are kept
    sizes: dict[Path, Size]  # of the files that could be read


def _survey(
    paths: list[Path], size: Size | None, gray: bool, keep: bool = False
) -> _Survey:
    """Decode every file once, and see that the images fit together."""
    good: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    sizes: dict[Path, Size] = {}
    images = np.empty(0)
    first = None
    for path, frame in zip(paths, _decode_all(paths, size, gray), strict=True):
        if isinstance(frame, str):
            left_out.append((path, frame))
            continue
        image, sizes[path] = frame
        seen = Seen(path, image.shape, image.dtype)
        first = first or seen
        check_fits(first, seen)
        if keep and not good:
            images = np.empty((len(paths), *image.shape), image.dtype)
        if keep:
            images[len(good)] = image
        good.append(path)
    if first is None:
        raise ValueError(f"no image can be read; {_list_unreadable(left_out)}")
    return _Survey(good, first, left_out, images[: len(good)], sizes)


def _decode_all(
    paths: list[Path], size: Size | None, gray: bool
) -> Iterator[Frame | str]:
    """Decode in parallel, in order; of a file that cannot be read, say why."""
    decode = partial(decode_or_say_why, size=size, gray=gray)
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(decode, paths[start : start + _AT_ONCE])


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of last change in ns; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _list_unreadable(left_out: list[tuple[Path, str]]) -> str:
    lines = [f"  {path}: {why}" for path, why in left_out[:_LISTED]]
    if len(left_out) > _LISTED:
        lines.append(f"  and {len(left_out) - _LISTED} more")
    return "\n".join([f"cannot read {len(left_out)} image file(s):", *lines])


def _warn_left_out(left_out: list[tuple[Path, str]]) -> None:
    if left_out:
        message = f"left out, {_list_unreadable(left_out)}"
        warn(message)
