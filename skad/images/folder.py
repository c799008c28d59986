"""Read image files into arrays: one file, a whole folder, or lazily on access."""

import copy
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from skad.images.decoding import (
    Frame,
    PathLike,
    Seen,
    check_fits,
    check_truncated,
    read_frame,
    read_image,
    warn_truncated,
)
from skad.images.finding import find_images
from skad.images.resizing import Size, check_bool, check_options, resize_image
from skad.images.survey import list_unreadable, stamp, survey_files, warn_of

__all__ = [
    "ImageFolder",
    "ImageReader",
    "find_images",
    "read_image",
    "read_images",
    "resize_image",
]


def read_images(
    path: PathLike | Iterable[PathLike],
    image_size: int | Size | None = None,
    gray: bool = False,
    *,
    recursive: bool = False,
    truncated: str = "error",
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
    recursive : bool, default=False
        As in `find_images`.
    truncated : {"error", "warn"}, default="error"
        As in `read_image`; such files are left out, or read and named in a warning.

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
    check_truncated(truncated)
    paths = find_images(path, recursive=recursive)
    survey = survey_files(paths, size, gray, truncated, keep=True)
    warn_of(survey)
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
    recursive : bool, default=False
        As in `find_images`.
    truncated : {"error", "warn"}, default="error"
        As in `read_image`; such files are left out, or named in a warning once.

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
        recursive: bool = False,
        truncated: str = "error",
    ) -> None:
        self.image_size = check_options(image_size, gray)
        self.gray = bool(gray)
        self.truncated = check_truncated(truncated)
        paths = find_images(source, recursive=recursive)
        self.folder: Path | None = None
        if isinstance(source, (str, os.PathLike)):
            folder = Path(os.path.expanduser(source))
            self.folder = folder if folder.is_dir() else None
        self._is_checked = check = check_bool("check", check)
        survey = survey_files(
            paths if check else paths[:1], self.image_size, self.gray, truncated
        )
        self.paths = survey.paths if check else paths
        self.left_out = survey.left_out
        self._first = survey.first
        self._sizes = survey.sizes  # and of each file that is read later
        warn_of(survey)
        self._stamps = [stamp(path) for path in self.paths]  # for joblib.hash

    def in_memory(self) -> NDArray[Any]:
        """Read all images into one array; files that are gone now are left out.

        Returns
        -------
        ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
            Files that cannot be read any more are named in a warning.
        """
        survey = survey_files(
            self.paths, self.image_size, self.gray, self.truncated, keep=True
        )
        warn_of(survey._replace(truncated=[]))  # of these the user knows
        return survey.images

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
        frame = read_frame(path, self.image_size, self.gray, self.truncated)
        if frame.lack and not self._is_checked:
            warn_truncated([(path, frame.lack)])
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
        survey = survey_files(find_images(X), size, self.gray, "error", keep=True)
        if survey.left_out:
            raise ValueError(list_unreadable(survey.left_out))
        return survey.images

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn: paths in, no fit needed."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
