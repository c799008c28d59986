"""Read many image files: into one array, or lazily as they are asked for.

Every file is decoded once at the start: which can be read, and do they fit together?
"""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from skad.common.warnings import warn
from skad.images.decoding import Frame, PathLike, Reader, reader_for, reader_of
from skad.images.exclusion import leave_out
from skad.images.finding import find_images
from skad.images.resizing import Size

_LISTED = 10  # files that one warning or error spells out
_WORKERS = min(4, os.cpu_count() or 1)
_AT_ONCE = 4 * _WORKERS  # decoded images that wait in memory, at most


class Survey(NamedTuple):
    """What came of decoding some files."""

    paths: list[Path]  # of the files that could be read
    sizes: list[Size]  # of these, before they were resized
    shape: tuple[int, ...]  # of each image
    dtype: np.dtype[Any]  # of each image
    images: NDArray[Any]  # empty unless they are kept


def survey_files(
    paths: list[Path], reader: Reader, *, keep: bool = False, strict: bool = False
) -> Survey:
    """Decode every file once, and check that the images fit together.

    Files that cannot be read are left out with a warning, or with `strict` an error.
    """
    errors: list[str] = []
    good: list[Path] = []
    sizes: list[Size] = []
    first = images = np.empty(0)
    for path, frame in read_all(paths, reader):
        if isinstance(frame, Exception):
            errors.append(str(frame))
            continue
        image = frame.image
        if not good:
            first = image
            images = np.empty((len(paths) if keep else 0, *image.shape), image.dtype)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise ValueError(
                "images must have one size (height x width), colour and bit depth: "
                f"{good[0]} is {_describe(first)}, {path} is {_describe(image)}; pass "
                f"image_size={first.shape[:2]} to resize them, or gray=True to read "
                "all as gray, or convert the files to one bit depth"
            )
        if keep:
            images[len(good)] = image
        good.append(path)
        sizes.append(frame.size)
    if errors:
        more = ["..."] * (len(errors) > _LISTED)
        which = "\n  ".join(
            [f"{len(errors)} image file(s) left out:", *errors[:_LISTED], *more]
        )
        if strict or not good:
            raise ValueError(which if good else f"no image can be read; {which}")
        warn(which)
    return Survey(good, sizes, first.shape, first.dtype, images[: len(good)])


def _describe(image: NDArray[Any]) -> str:
    colour = "gray" if image.ndim == 2 else "colour"
    return f"{image.shape[0]} x {image.shape[1]} {colour} {image.dtype}"


def read_all(
    paths: list[Path], reader: Reader
) -> Iterator[tuple[Path, Frame | Exception]]:
    """Read in parallel, in order; of a file that cannot be read, yield the error."""

    def read(path: Path) -> Frame | Exception:
        try:
            return reader.read(path)
        except (OSError, ValueError) as error:
            return error

    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            yield from zip(some, pool.map(read, some), strict=True)


def read_images(
    path: PathLike | Iterable[PathLike],
    image_size: int | Size | None = None,
    gray: bool = False,
    *,
    recursive: bool = False,
) -> NDArray[Any]:
    """Read a folder of images, or a list of files, into one array.

    A warning names files that cannot be read; they are skipped. To match images with
    labels, use `ImageFolder` and its `paths`.

    Parameters
    ----------
    path, recursive
        As in `find_images`.
    image_size, gray
        As in `read_image`.

    Returns
    -------
    ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
        dtype as in `read_image`.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If no file can be read, or the images differ in size, colour or bit depth.
    """
    reader = reader_of(image_size, gray)
    paths = find_images(path, recursive=recursive)
    return survey_files(paths, reader, keep=True).images


class ImageFolder:
    """A lazy sequence of images that decodes a file when it is accessed.

    Use it for folders that do not fit into memory. Every file is decoded once at the
    start; a warning names those that cannot be read, and they are skipped. An int as
    index gives an image; a slice, a list of ints or a bool mask another `ImageFolder`.

    Parameters
    ----------
    source, recursive
        As `path` and `recursive` in `find_images`.
    image_size, gray
        As in `read_image`.
    exclude : path or iterable of paths, default=None
        Files to leave out: a CSV file with a column "path", as an audit exports it, or
        the paths themselves. Relative ones start at the working directory. A path that
        is not among the files is an error.

    Attributes
    ----------
    paths : list of pathlib.Path
        The files, in order.
    folder : pathlib.Path or None
        The source, if it is a folder.
    frame_sizes : list of (height, width)
        Sizes of the files, upright: `inspect` gives regions in these.
    dtype : numpy.dtype
        Number type of every image, as in `read_image`.

    Notes
    -----
    A pickle stores paths, not pixels, and the size and modification time of each file,
    so that a ``joblib.Memory`` notices changed files. Errors are those of
    `read_images`.

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
        recursive: bool = False,
        exclude: PathLike | Iterable[PathLike] | None = None,
    ) -> None:
        reader = reader_of(image_size, gray)
        paths = leave_out(find_images(source, recursive=recursive), exclude)
        one = isinstance(source, str | os.PathLike) and Path(source).expanduser()
        self.folder = one if one and one.is_dir() else None
        self._read(paths, reader)

    def _read(self, paths: list[Path], reader: Reader) -> None:
        self._reader = reader
        survey = survey_files(paths, reader)
        self.paths, self.frame_sizes = survey.paths, survey.sizes
        self.dtype, self._image_shape = survey.dtype, survey.shape
        self._stamps = [_stamp(path) for path in self.paths]  # for joblib.hash

    def in_memory(self) -> NDArray[Any]:
        """Read all images into one array, as `read_images` does."""
        return survey_files(self.paths, self._reader, keep=True).images

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_images, height, width) or (n_images, height, width, 3)."""
        return (len(self.paths), *self._image_shape)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, key: Any) -> Any:
        """Return an image for an int; for a slice, int array or bool mask a folder."""
        places = np.arange(len(self))[key]
        if places.ndim == 0:
            return self._reader.read(self.paths[places]).image
        subset = copy.copy(self)
        for name in ("paths", "frame_sizes", "_stamps"):
            of_all = getattr(self, name)
            setattr(subset, name, [of_all[place] for place in places])
        return subset

    def __repr__(self) -> str:
        """Say how many images of which shape and type there are."""
        return f"<ImageFolder of shape {self.shape}, {self.dtype}>"


def as_fitted(detector: Any) -> Reader:
    """Return what reads files at the size and with the channels of a detector's images.

    Raises a ValueError where it was fitted on images that no file can hold.
    """
    return reader_for(detector.image_shape_in_)


def folder_as_fitted(detector: Any, files: list[Path]) -> ImageFolder:
    """Return files as a detector reads them, without those that cannot be read."""
    folder = ImageFolder.__new__(ImageFolder)
    folder.folder = None
    folder._read(files, as_fitted(detector))
    return folder


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of last change in ns; None where the file is gone."""
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return None


class ImageReader(TransformerMixin, BaseEstimator):
    """Transformer for a ``Pipeline`` that reads image files: paths in, one array out.

    `fit` only checks the parameters.

    Parameters
    ----------
    image_size : int or (height, width), default=None
    gray : bool, default=False
        As in `read_image`.
    """

    def __init__(
        self, image_size: int | Size | None = None, gray: bool = False
    ) -> None:
        self.image_size = image_size
        self.gray = gray

    def fit(self, X: Sequence[PathLike], y: Any = None) -> Self:
        """Check the parameters; X and y are ignored and no file is opened."""
        reader_of(self.image_size, self.gray)
        return self

    def transform(self, X: Sequence[PathLike]) -> NDArray[Any]:
        """Read the images; any file that cannot be read is an error.

        Parameters
        ----------
        X : sequence of paths, length n_images, or table of shape (n_images, 1)

        Returns
        -------
        ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
            dtype as in `read_image`.
        """
        reader = reader_of(self.image_size, self.gray)
        return survey_files(find_images(X), reader, keep=True, strict=True).images

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that no fit is needed."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
