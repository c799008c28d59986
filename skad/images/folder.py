"""Read many image files: into one array, or lazily as they are asked for."""

import copy
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from skad.images.decoding import PathLike, read_frame
from skad.images.finding import find_images
from skad.images.resizing import Size, check_options
from skad.images.survey import survey_files


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
    size = check_options(image_size, gray)
    paths = find_images(path, recursive=recursive)
    return survey_files(paths, size, 1 if gray else None, keep=True).images


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

    _channels: int | None = None  # those that a file has

    def __init__(
        self,
        source: PathLike | Iterable[PathLike],
        *,
        image_size: int | Size | None = None,
        gray: bool = False,
        recursive: bool = False,
    ) -> None:
        self.image_size = check_options(image_size, gray)
        self.gray = bool(gray)
        self._options = (self.image_size, 1 if gray else self._channels)
        paths = find_images(source, recursive=recursive)
        one = isinstance(source, str | os.PathLike) and Path(source).expanduser()
        self.folder = one if one and one.is_dir() else None
        survey = survey_files(paths, *self._options)
        self.paths, self.frame_sizes = survey.paths, survey.sizes
        self.dtype, self._image_shape = survey.dtype, survey.shape
        self._stamps = [_stamp(path) for path in self.paths]  # for joblib.hash

    def in_memory(self) -> NDArray[Any]:
        """Read all images into one array, as `read_images` does."""
        return survey_files(self.paths, *self._options, keep=True).images

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
            return read_frame(self.paths[places], *self._options).image
        subset = copy.copy(self)
        for name in ("paths", "frame_sizes", "_stamps"):
            of_all = getattr(self, name)
            setattr(subset, name, [of_all[place] for place in places])
        return subset

    def __repr__(self) -> str:
        """Say how many images of which shape and type there are."""
        return f"<ImageFolder of shape {self.shape}, {self.dtype}>"


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
        check_options(self.image_size, self.gray)
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
        size = check_options(self.image_size, self.gray)
        if isinstance(X, str | os.PathLike):
            raise ValueError(
                f"X must be a sequence of paths; got the single path {X!r}: pass "
                "[path], or skad.images.find_images(folder)"
            )
        channels = 1 if self.gray else None
        return survey_files(
            find_images(X), size, channels, keep=True, strict=True
        ).images

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that no fit is needed."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
