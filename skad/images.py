"""Read image files into arrays: one file, a whole folder, or lazily on access."""

import copy
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin
from PIL.TiffImagePlugin import TiffImageFile
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

__all__ = ["ImageFolder", "ImageReader", "find_images", "read_image", "read_images"]

PathLike = str | os.PathLike[str]
Size = tuple[int, int]  # (height, width), pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 2**28  # 16384 x 16384: far above any camera, 1 GiB as Pillow holds colour

_WORKERS = min(4, os.cpu_count() or 1)  # each holds one decoded image
_LISTED = 10  # files that one warning or error spells out
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, as Pillow's mode "L"
_TIFF_DTYPES = {  # in the file: as read
    "uint8": np.uint8,
    "uint16": np.uint16,
    "float16": np.float32,
    "float32": np.float32,
    "float64": np.float32,
}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The plug-ins are called themselves, because Image.open warns or raises at a size
# that only the global Image.MAX_IMAGE_PIXELS could move, and tries every format.
_PLUGINS: tuple[tuple[bytes, Callable[[BinaryIO], Image.Image]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)


def find_images(path: PathLike | Iterable[PathLike]) -> list[Path]:
    """List the image files of a folder.

    Parameters
    ----------
    path : path or iterable of paths
        A folder, searched for ``*.jpg``, ``*.jpeg``, ``*.png``, ``*.bmp``, ``*.tif``
        and ``*.tiff`` in any case, not recursively; or one file; or the files
        themselves, kept in their order. What is named as a file need not have one
        of these suffixes.

    Returns
    -------
    list of pathlib.Path
        The files of a folder in plain string order of their names, on every system
        the same: ``"10.png"`` comes before ``"2.png"``.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If there is no image in the folder, or no path in the iterable.
    """
    if not isinstance(path, str | os.PathLike):
        paths = [Path(item) for item in path]
        if not paths:
            raise ValueError("no image paths: the sequence of paths is empty")
    elif os.path.isdir(path):
        return _search(Path(path))
    else:
        paths = [Path(path)]
    for item in paths:
        if not os.path.lexists(item):
            raise FileNotFoundError(f"no such image file or folder: {item}")
    return paths


def read_image(
    path: PathLike, image_size: int | Size | None = None, gray: bool = False
) -> NDArray[Any]:
    """Read one image file.

    Parameters
    ----------
    path : path
        A PNG, JPEG, BMP or TIFF file; its contents decide, not its name. Of a file
        with several frames or pages, the first is read.
    image_size : int or (height, width), default=None
        Resize to this many pixels, an int meaning a square; shrinking averages, so
        that it does not alias. None keeps the size of the file.
    gray : bool, default=False
        Convert colour to luminance, 0.299 R + 0.587 G + 0.114 B [1]_.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
        Gray or RGB: uint8 in 0..255, uint16 in 0..65535 for 16-bit files, float32
        as stored for TIFF files of floating-point numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read; the message names the file and the reason. That
        includes truncated files, files that claim more than ``MAX_PIXELS`` pixels,
        and 16-bit PNG files with colour or alpha, which Pillow would silently cut
        to 8 bits.

    Notes
    -----
    The EXIF orientation is applied. An alpha channel is dropped and the colours under
    it are kept as stored. Palette and CMYK images become RGB, 1-bit images become
    gray with 0 and 255.

    References
    ----------
    .. [1] Recommendation ITU-R BT.601-7, Studio encoding parameters of digital
       television, 2011.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from skad import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30), "red").save(f"{folder}/part.png")
    ...     read_image(f"{folder}/part.png", image_size=(15, 20), gray=True).shape
    (15, 20)
    """
    size = _check_options(image_size, gray)
    try:
        return _read(Path(path), size, gray)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read the image {path}: {_reason(error)}") from error


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
    size = _check_options(image_size, gray)
    paths = find_images(path)
    stack = _Stack(len(paths))
    survey = _survey(paths, size, gray, stack.put)
    _warn_left_out(survey.left_out)
    return stack.images if not survey.left_out else stack.images[survey.good]


class ImageFolder:
    """A lazy sequence of images that decodes a file when it is asked for.

    Only what is indexed is in memory, so a folder larger than the memory can be
    fitted and scored. Labels belong beside `paths`, which lacks the files in
    `left_out`.

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
        The files, in order.
    left_out : list of (pathlib.Path, str)
        The files of the source that could not be read, with the reasons.
    shape : tuple of int
        (n_images, height, width) or (n_images, height, width, 3).
    dtype : numpy.dtype
        As in `read_image`.
    ndim : int
        Length of `shape`.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If no file can be read, or the images differ in size, colour or bit depth.

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
        self.image_size = _check_options(image_size, gray)
        self.gray = bool(gray)
        self.paths = find_images(source)
        self.left_out: list[tuple[Path, str]] = []
        if _check_bool("check", check):
            survey = _survey(self.paths, self.image_size, self.gray)
            self.paths = [self.paths[index] for index in survey.good]
            self.left_out = survey.left_out
            self._first = survey.first
            _warn_left_out(self.left_out)
        else:
            image = read_image(self.paths[0], self.image_size, self.gray)
            self._first = _Seen(self.paths[0], image.shape, image.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the images would have as one array."""
        return (len(self.paths), *self._first.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of every image."""
        return self._first.dtype

    @property
    def ndim(self) -> int:
        """Number of axes: 3 for gray images, 4 for colour."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Decode one image after the other."""
        return (self._image(index) for index in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Return an image for an int; for a slice, int array or bool mask a folder."""
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]  # as scikit-learn's _safe_indexing asks: X[indices, ...]
        if isinstance(key, slice):
            return self._subset(range(len(self))[key])
        if isinstance(key, Integral) and not isinstance(key, bool):
            return self._image(int(key))
        wanted = np.asarray(key)
        if wanted.size == 0 and wanted.dtype.kind == "f":
            wanted = wanted.astype(int)  # what NumPy makes of []
        fits = wanted.ndim == 1 and wanted.dtype.kind in "biu"
        if isinstance(key, tuple) or not fits:
            raise IndexError(
                "an ImageFolder is indexed by an int, a slice, a list of ints or a "
                f"bool mask of its length; got {key!r}"
            )
        if wanted.dtype == bool:
            if len(wanted) != len(self):
                raise IndexError(
                    f"a bool mask must have one entry for each of the {len(self)} "
                    f"images; got {len(wanted)}"
                )
            wanted = np.flatnonzero(wanted)
        return self._subset(int(index) for index in wanted)

    def __repr__(self) -> str:
        """Say how many images of which size and type there are."""
        where = f" from {self.paths[0].parent}" if self.paths else ""
        size = " x ".join(str(length) for length in self._first.shape)
        return f"<ImageFolder: {len(self)} images, {size}, {self.dtype}{where}>"

    def _subset(self, indices: Iterable[int]) -> Self:
        subset = copy.copy(self)
        subset.paths = [self.paths[self._position(index)] for index in indices]
        return subset

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} is asked for, but there are {len(self)}")
        return index

    def _image(self, index: int) -> NDArray[Any]:
        path = self.paths[self._position(index)]
        image = read_image(path, self.image_size, self.gray)
        _check_fits(self._first, _Seen(path, image.shape, image.dtype))
        return image


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
        """Check the parameters; nothing is learned and no file is opened.

        Parameters
        ----------
        X : sequence of paths
            Ignored.
        y : None
            Ignored.

        Returns
        -------
        ImageReader
            The reader itself.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        _check_options(self.image_size, self.gray)
        return self

    def transform(self, X: Sequence[PathLike]) -> NDArray[Any]:
        """Read the images.

        Parameters
        ----------
        X : sequence of paths, length n_images
            Files, not a folder.

        Returns
        -------
        ndarray of shape (n_images, height, width) or (n_images, height, width, 3)
            dtype as in `read_image`; one image for each path, in order.

        Raises
        ------
        FileNotFoundError
            If a file does not exist.
        ValueError
            If a file cannot be read, or the images differ in size, colour or bit
            depth: nothing is left out here, since labels would lose step.
        """
        size = _check_options(self.image_size, self.gray)
        if isinstance(X, str | os.PathLike):
            raise ValueError(
                f"X must be a sequence of paths; got the single path {X!r}: pass "
                "[path], or skad.images.find_images(folder)"
            )
        paths = find_images(X)
        stack = _Stack(len(paths))
        survey = _survey(paths, size, self.gray, stack.put)
        if survey.left_out:
            raise ValueError(_list_unreadable(survey.left_out))
        return stack.images

    def __sklearn_is_fitted__(self) -> bool:
        """Return True: there is nothing to fit."""
        return True

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn: paths in, no fit needed."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


# --- Many files: read each once, and see that they fit together -----------------


class _Seen(NamedTuple):
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Survey(NamedTuple):
    good: list[int]  # indices of the files that could be read
    first: _Seen  # of the good ones
    left_out: list[tuple[Path, str]]


class _Stack:
    """An array of n images, made when the first of them shows its shape and dtype."""

    def __init__(self, n_images: int) -> None:
        self._n_images = n_images
        self._lock = threading.Lock()
        self.images: NDArray[Any] = np.empty(0)

    def put(self, index: int, image: NDArray[Any]) -> None:
        with self._lock:
            if not self.images.size:
                self.images = np.empty((self._n_images, *image.shape), image.dtype)
        if image.shape == self.images.shape[1:] and image.dtype == self.images.dtype:
            self.images[index] = image  # one that does not fit is the survey's error


def _search(folder: Path) -> list[Path]:
    # Not is_file: a broken link must be named later as unreadable, not vanish.
    found = [
        item
        for item in folder.iterdir()
        if item.suffix.lower() in SUFFIXES and not item.is_dir()
    ]
    if not found:
        raise ValueError(
            f"no image in the folder {folder}: looked for *{', *'.join(SUFFIXES)} "
            "(any case, not in subfolders)"
        )
    return sorted(found, key=lambda item: item.name)


def _survey(
    paths: list[Path],
    size: Size | None,
    gray: bool,
    keep: Callable[[int, NDArray[Any]], None] | None = None,
) -> _Survey:
    def look(index: int) -> _Seen | str:
        try:
            image = _read(paths[index], size, gray)
        except Exception as error:
            return _reason(error)
        if keep is not None:
            keep(index, image)
        return _Seen(paths[index], image.shape, image.dtype)

    with ThreadPoolExecutor(_WORKERS) as pool:
        results = list(pool.map(look, range(len(paths))))
    seen = [result for result in results if isinstance(result, _Seen)]
    good = [index for index, result in enumerate(results) if isinstance(result, _Seen)]
    left_out = [
        (path, result)
        for path, result in zip(paths, results, strict=True)
        if isinstance(result, str)
    ]
    if not seen:
        raise ValueError(f"no image can be read; {_list_unreadable(left_out)}")
    for other in seen:
        _check_fits(seen[0], other)
    return _Survey(good, seen[0], left_out)


def _check_fits(first: _Seen, other: _Seen) -> None:
    if len(first.shape) != len(other.shape):
        kinds = {2: "gray", 3: "colour"}
        raise ValueError(
            f"images must be all gray or all colour: {first.path} is "
            f"{kinds[len(first.shape)]}, {other.path} is {kinds[len(other.shape)]}; "
            "pass gray=True to read all as gray"
        )
    if first.dtype != other.dtype:
        raise ValueError(
            f"images must have one bit depth: {first.path} is {first.dtype}, "
            f"{other.path} is {other.dtype}; convert the files to one depth"
        )
    if first.shape != other.shape:
        sizes = [f"{seen.shape[0]} x {seen.shape[1]}" for seen in (first, other)]
        raise ValueError(
            f"images must have one size (height x width): {first.path} is {sizes[0]}, "
            f"{other.path} is {sizes[1]}; pass image_size=(height, width), "
            f"for example image_size={first.shape[:2]}, to resize them"
        )


def _list_unreadable(left_out: list[tuple[Path, str]]) -> str:
    lines = [f"  {path}: {reason}" for path, reason in left_out[:_LISTED]]
    if len(left_out) > _LISTED:
        lines.append(f"  and {len(left_out) - _LISTED} more")
    return "\n".join([f"cannot read {len(left_out)} image file(s):", *lines])


def _warn_left_out(left_out: list[tuple[Path, str]]) -> None:
    if left_out:
        message = f"left out, {_list_unreadable(left_out)}"
        warnings.warn(message, UserWarning, stacklevel=3)


# --- One file -------------------------------------------------------------------


def _check_options(image_size: Any, gray: Any) -> Size | None:
    """Return image_size as (height, width) or None."""
    _check_bool("gray", gray)
    if image_size is None:
        return None
    square = isinstance(image_size, Integral)
    sides = (image_size, image_size) if square else image_size
    if (
        not isinstance(sides, tuple | list | np.ndarray)
        or len(sides) != 2
        or any(isinstance(s, bool) or not isinstance(s, Integral) for s in sides)
        or min(sides) < 1
    ):
        raise ValueError(
            "image_size must be None, an int or (height, width), in whole pixels of at "
            f"least 1; got {image_size!r}"
        )
    height, width = int(sides[0]), int(sides[1])
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"image_size may hold at most {MAX_PIXELS} pixels; got {image_size!r}"
        )
    return height, width


def _check_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def _reason(error: Exception) -> str:
    plain = isinstance(error, OSError | ValueError) and str(error)
    return str(error) if plain else repr(error)


def _read(path: Path, size: Size | None, gray: bool) -> NDArray[Any]:
    """Decode and resize; a bad file may raise any exception that a decoder has."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {path}")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise ValueError("it is a folder or a device, not a file")
    with path.open("rb") as file:
        start = file.read(26)  # up to colour type in a PNG header
        file.seek(0)
        if not start:
            raise ValueError("the file is empty")
        if start[:4] in _TIFF_STARTS:
            image = _decode_tiff(file, gray)
        else:
            image = _decode(file, start, gray)
    return image if size is None else _resize(image, size)


def _decode(file: BinaryIO, start: bytes, gray: bool) -> NDArray[Any]:
    for magic, plugin in _PLUGINS:
        if start.startswith(magic):
            # PNG specification, 11.2.2: bit depth, then colour type; 0 is gray.
            if magic[1:4] == b"PNG" and start[24:25] == b"\x10" and start[25:] > b"\0":
                raise ValueError(
                    "a 16-bit PNG with colour or alpha would be cut to 8 bits; save it "
                    "as 16-bit TIFF, 16-bit gray PNG or 8-bit PNG"
                )
            with plugin(file) as image:
                return _to_array(image, gray)
    raise ValueError("its contents are not PNG, JPEG, BMP or TIFF")


def _decode_tiff(file: BinaryIO, gray: bool) -> NDArray[Any]:
    import tifffile  # comes with scikit-image

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        _check_claim(page.imagewidth, page.imagelength)
        dtype, channels = str(page.dtype), page.samplesperpixel
        ink = getattr(page.photometric, "name", str(page.photometric))
        pixels = max(
            page.imagewidth * page.imagelength, page.tilewidth * page.tilelength
        )
        shallow = dtype in ("bool", "uint8") or (dtype, channels) == ("uint16", 1)
        if shallow and pixels <= (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
            file.seek(0)
            with TiffImageFile(file) as image:  # has more decompressors than tifffile
                array = _to_array(image, gray)
            if dtype == "uint16" and ink == "MINISWHITE":
                return np.iinfo(np.uint16).max - array  # Pillow does so for 8 bits only
            return array
        if dtype not in _TIFF_DTYPES or page.axes not in ("YX", "YXS", "SYX"):
            raise ValueError(
                f"a TIFF page of {dtype} with axes {page.axes} is not supported; save "
                "it as uint8, uint16 or float32, gray or RGB"
            )
        if ink not in ("RGB", "MINISBLACK") or channels > 4:
            raise ValueError(
                f"a TIFF page of {channels} channel(s) of {dtype}, {ink}, is not "
                "supported; save it as gray (MINISBLACK) or RGB"
            )
        _check_claim(page.tilewidth or 1, page.tilelength or 1)
        array = page.asarray()
        turn = page.tags.valueof("Orientation", 1)
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    if array.ndim == 3:  # gray + alpha has two channels, RGB + alpha four
        array = array[..., 0] if channels < 3 else array[..., :3]
    array = _orient(array.astype(_TIFF_DTYPES[dtype]), turn)
    return _luminance(array) if gray else array


def _check_claim(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(
            f"its header claims {width} x {height} pixels (width x height); allowed "
            f"are 1 to {MAX_PIXELS} pixels"
        )


def _to_array(image: Image.Image, gray: bool) -> NDArray[Any]:
    """Load an opened image: upright, without alpha or palette."""
    _check_claim(*image.size)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # "I;16"; "I" in older Pillow
        return np.array(image).astype(np.uint16)
    image.info.pop("transparency", None)  # or conversion would warn about it
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    colour = image.convert("RGB")
    return np.array(colour.convert("L") if gray else colour)


def _luminance(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        return array
    return _as_type(array @ np.array(_LUMINANCE), array.dtype)  # (H, W)


def _orient(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """Undo the orientation of TIFF tag 274 (TIFF 6.0, page 36)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _resize(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize with a triangle filter as wide as the shrinking, so that none aliases."""
    if array.shape[:2] == size:
        return array

    def resize(plane: NDArray[Any]) -> NDArray[Any]:
        # A gap of 3 is quicker and "almost indistinguishable" (Pillow's manual).
        image = Image.fromarray(plane)
        shape = (size[1], size[0])
        return np.array(image.resize(shape, Image.Resampling.BILINEAR, reducing_gap=3))

    if array.dtype == np.uint8:
        return resize(array)
    if array.ndim == 2:
        return _as_type(resize(array.astype(np.float32)), array.dtype)
    planes = [_resize(np.ascontiguousarray(array[..., c]), size) for c in range(3)]
    return np.stack(planes, axis=-1)  # (H, W, 3)


def _as_type(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.float32:
        return array.astype(dtype)
    return np.clip(np.rint(array), 0, np.iinfo(dtype).max).astype(dtype)
