"""One image file in, one array out; or a reason why not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from skad._masked import refuse_mask
from skad._whole_numbers import whole_numbers

PathLike = str | os.PathLike[str]
Size = tuple[int, int]  # (height, width), pixels

MAX_PIXELS = 2**28  # 16384 x 16384: far above any camera, 1 GiB as Pillow holds colour

_DTYPES = (np.uint8, np.uint16, np.float32)  # of all that is read
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
        includes claims of more than 2**28 pixels, and 16-bit PNG files with colour or
        alpha, which Pillow would silently cut to 8 bits.

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
    return read_frame(path, check_options(image_size, gray), gray).image


class Frame(NamedTuple):
    """An image as it was asked for, and its size before it was resized."""

    image: NDArray[Any]  # (height, width) or (height, width, 3)
    size: Size  # of the file, upright


def read_frame(path: PathLike, size: Size | None, gray: bool) -> Frame:
    """Read one image file as `read_image` does; the options are checked already."""
    try:
        return _decode(Path(path), size, gray)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read the image {path}: {_reason(error)}") from error


class Seen(NamedTuple):
    """What is remembered of an image that was decoded."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        """Say size, colour and bit depth."""
        kind = "gray" if len(self.shape) == 2 else "colour"
        return f"{self.shape[0]} x {self.shape[1]} {kind} {self.dtype}"


def check_fits(first: Seen, other: Seen) -> None:
    """Refuse an image that cannot be in one array with the first."""
    if (first.shape, first.dtype) != (other.shape, other.dtype):
        raise ValueError(
            "images must have one size (height x width), colour and bit depth: "
            f"{first.path} is {first}, {other.path} is {other}; pass "
            f"image_size={first.shape[:2]} to resize them, gray=True to read all as "
            "gray, or convert the files to one bit depth"
        )


def check_options(image_size: Any, gray: Any) -> Size | None:
    """Check both; return image_size as (height, width) or None."""
    check_bool("gray", gray)
    if image_size is None:
        return None
    sides = whole_numbers(image_size, alone=2)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(
            "image_size must be None, an int or (height, width), in whole pixels of at "
            f"least 1; got {image_size!r}"
        )
    height, width = sides
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"image_size may hold at most {MAX_PIXELS} pixels; got {image_size!r}"
        )
    return height, width


def check_bool(name: str, value: Any) -> bool:
    """Return a flag as a Python bool."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def as_colour(image: NDArray[Any]) -> NDArray[Any]:
    """Return a gray image (H, W) as one of three equal channels; colour stays."""
    return np.repeat(image[:, :, np.newaxis], 3, axis=2) if image.ndim == 2 else image


def decode_or_say_why(path: Path, size: Size | None, gray: bool) -> Frame | str:
    """Return the image and the size of its file, or the reason why there is none."""
    try:
        return _decode(path, size, gray)
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    plain = isinstance(error, OSError | ValueError) and str(error)
    return str(error) if plain else repr(error)


def _decode(path: Path, size: Size | None, gray: bool) -> Frame:
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
            image = _decode_plain(file, start, gray)
    resized = image if size is None else _resize(image, size)
    return Frame(resized, (image.shape[0], image.shape[1]))


def _decode_plain(file: BinaryIO, start: bytes, gray: bool) -> NDArray[Any]:
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


def _check_claim(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(
            f"its header claims {width} x {height} pixels (width x height); allowed "
            f"are 1 to {MAX_PIXELS} pixels"
        )


def _decode_tiff(file: BinaryIO, gray: bool) -> NDArray[Any]:
    import tifffile  # comes with scikit-image

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        _check_claim(page.imagewidth, page.imagelength)
        if not _suits_pillow(page):
            return _decode_page(page, gray)
        file.seek(0)
        with TiffImageFile(file) as image:  # has more decompressors than tifffile
            array = _to_array(image, gray)
        # Pillow inverts 8 bits only.
        return (
            ~array if array.dtype == np.uint16 and _ink(page) == "MINISWHITE" else array
        )


def _suits_pillow(page: Any) -> bool:
    """Whether Pillow keeps the bits of a page and does not find it too large."""
    tile = page.tilewidth * page.tilelength
    largest = max(page.imagewidth * page.imagelength, tile)
    dtype = str(page.dtype)
    return largest <= (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) and (
        dtype in ("bool", "uint8") or (dtype, page.samplesperpixel) == ("uint16", 1)
    )


def _ink(page: Any) -> str:
    return getattr(page.photometric, "name", str(page.photometric))


def _decode_page(page: Any, gray: bool) -> NDArray[Any]:
    """Decode deep colour, floating point and what is above Pillow's own limit."""
    dtype, channels, ink = str(page.dtype), page.samplesperpixel, _ink(page)
    if (
        dtype not in _TIFF_DTYPES
        or page.axes not in ("YX", "YXS", "SYX")
        or ink not in ("RGB", "MINISBLACK")
        or channels > 4
    ):
        raise ValueError(
            f"a TIFF page of {channels} channel(s) of {dtype}, {ink}, with axes "
            f"{page.axes}, is not supported; save it as uint8, uint16 or float32, gray "
            "(MINISBLACK) or RGB"
        )
    _check_claim(page.tilewidth or 1, page.tilelength or 1)
    array = page.asarray()
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array  # (H, W[, C])
    if array.ndim == 3:  # gray + alpha has two channels, RGB + alpha four
        array = array[..., 0] if channels < 3 else array[..., :3]
    turn = page.tags.valueof("Orientation", 1)
    array = _orient(array.astype(_TIFF_DTYPES[dtype]), turn)
    if gray and array.ndim == 3:
        return _as_type(array @ np.array(_LUMINANCE), array.dtype)  # (H, W)
    return array


def _orient(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """Undo the orientation of TIFF tag 274 (TIFF 6.0, page 36)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def resize_image(image: ArrayLike, image_size: int | Size) -> NDArray[Any]:
    """Resize an image in memory, as `read_image` resizes one that it reads.

    For frames of a camera, and a detector that was fitted on files: another way to
    resize moves scores, and sometimes verdicts.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, 3)
        uint8, uint16 or float32.
    image_size : int or (height, width)
        An int means a square.

    Returns
    -------
    ndarray of shape image_size or (*image_size, 3), of the same dtype

    Raises
    ------
    ValueError
        If `image` has another shape or dtype, or `image_size` is none.

    Examples
    --------
    >>> frame = np.arange(12, dtype=np.uint8).reshape(2, 6)
    >>> resize_image(frame, (1, 3))
    array([[4, 6, 7]], dtype=uint8)
    """
    refuse_mask(image, "image")
    array = np.array(image)  # a copy: a camera may use its frame again
    dtype = array.dtype.newbyteorder("=")
    has_size = array.size and array.ndim > 1 and array.shape[2:] in ((), (3,))
    if dtype not in _DTYPES or not has_size or getattr(image, "mode", "")[:1] == "P":
        raise ValueError(
            "image must be an array (height, width) or (height, width, 3) of uint8, "
            f"uint16 or float32, and no palette image; got {type(image).__name__} of "
            f"{array.dtype} and shape {array.shape}"
        )
    size = check_options(image_size, gray=False)
    if size is None:
        raise ValueError("image_size must be an int or (height, width); got None")
    return _resize(np.ascontiguousarray(array, dtype), size)


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
