"""One image file in, one array out; or a reason why not."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from skad.common.checks import MAX_PIXELS
from skad.common.warnings import warn
from skad.images.formats import (
    MAX_BYTES,
    UnreadableError,
    check_claim,
    check_depth,
    check_one_picture,
    find_plug_in,
    quiet,
    refuse_several,
)
from skad.images.loading import load
from skad.images.png import START, tidy_png
from skad.images.resizing import Size, check_options, resize
from skad.images.tiff import check_page, decode_page, ink

PathLike = str | os.PathLike[str]

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LISTED = 10  # files that one warning or error spells out


def read_image(
    path: PathLike,
    image_size: int | Size | None = None,
    gray: bool = False,
    *,
    truncated: str = "error",
) -> NDArray[Any]:
    """Read one image file.

    Parameters
    ----------
    path : path
        A file of any format that Pillow reads here, PNG, JPEG, TIFF, BMP, WebP, GIF,
        JPEG 2000 and AVIF among them, but no documents, drawings, movies and icons.
        Its contents decide, not its name.
    image_size : int or (height, width), default=None
        Resize to this many pixels, an int meaning a square; shrinking averages, so
        that it does not alias. None keeps the size of the file.
    gray : bool, default=False
        Convert colour to luminance, 0.299 R + 0.587 G + 0.114 B [1]_.
    truncated : {"error", "warn"}, default="error"
        What to do with a file that ends early, or whose data do. "warn" reads what its
        decoder gives, the rest black or gray, and says so in a warning; some decoders
        give nothing, and then it is an error all the same.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
        Gray or RGB: uint8 in 0..255, uint16 in 0..65535 for 16-bit files, float32
        as stored for files of floating-point numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read; the message names the file and the reason. That
        includes claims of more than 2**28 pixels, files of several frames or pages,
        pixels that are NaN or infinite, and more than 8 bits where Pillow would
        silently cut to 8, as in 16-bit PNG files with colour or alpha.

    Notes
    -----
    The EXIF orientation is applied, unless the EXIF block is broken. Previews beside an
    image, as in a camera's MPO or TIFF file, are no further frames or pages. An alpha
    channel is dropped and the colours under it are kept as stored. Palette and CMYK
    images become RGB, 1-bit images become gray with 0 and 255.

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
    size = check_options(image_size, gray)
    frame = read_frame(path, size, gray, check_truncated(truncated))
    if frame.lack:
        warn_truncated([(path, frame.lack)])
    return frame.image


class Frame(NamedTuple):
    """An image as it was asked for, and what its file says of it."""

    image: NDArray[Any]  # (height, width) or (height, width, 3)
    size: Size  # of the file, upright, before it was resized
    lack: str  # what is wrong with it, if that does not matter; mostly ""


def read_frame(
    path: PathLike, size: Size | None, gray: bool, truncated: str = "error"
) -> Frame:
    """Read one image file as `read_image` does; the options are checked already."""
    try:
        return _decode(Path(os.path.expanduser(path)), size, gray, truncated)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"cannot read the image {path}: {_reason(error)}") from error


def check_truncated(value: Any) -> str:
    """Check what to do with files that end early."""
    if value not in ("error", "warn"):
        raise ValueError(f"truncated must be 'error' or 'warn'; got {value!r}")
    return value


def warn_truncated(files: Sequence[tuple[PathLike, str]]) -> None:
    """Name files that were read although they end early."""
    warn(f"read without what is missing, {list_files('truncated', files)}")


def list_files(what: str, files: Sequence[tuple[PathLike, str]]) -> str:
    """Name some files with a reason each."""
    lines = [f"  {path}: {why}" for path, why in files[:_LISTED]]
    if len(files) > _LISTED:
        lines.append(f"  and {len(files) - _LISTED} more")
    return "\n".join(
        [" ".join((f"{len(files)}", *what.split(), "image file(s):")), *lines]
    )


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
        remedies = []
        if first.shape[:2] != other.shape[:2]:
            remedies.append(f"pass image_size={first.shape[:2]} to resize them")
        if first.shape[2:] != other.shape[2:]:
            remedies.append("pass gray=True to read all as gray")
        if first.dtype != other.dtype:
            remedies.append("convert the files to one bit depth")
        raise ValueError(
            "images must have one size (height x width), colour and bit depth: "
            f"{first.path} is {first}, {other.path} is {other}; {', '.join(remedies)}"
        )


def as_colour(image: NDArray[Any]) -> NDArray[Any]:
    """Return a gray image (H, W) as one of three equal channels; colour stays."""
    return np.repeat(image[:, :, np.newaxis], 3, axis=2) if image.ndim == 2 else image


def decode_or_say_why(
    path: Path, size: Size | None, gray: bool, truncated: str
) -> Frame | str:
    """Return the image and the size of its file, or the reason why there is none."""
    try:
        return _decode(path, size, gray, truncated)
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """Say what went wrong in words."""
    if isinstance(error, UnreadableError | FileNotFoundError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it (MemoryError)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error) if isinstance(error, OSError | ValueError | SyntaxError) else ""
    reason = "it is damaged, ends early or is of a kind that is not supported"
    return f"{reason}; its decoder says: {said}" if " " in said else reason


def _decode(path: Path, size: Size | None, gray: bool, truncated: str) -> Frame:
    """Decode and resize; a bad file may raise any exception that a decoder has."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {path}")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UnreadableError("it is a folder or a device, not a file")
    with path.open("rb") as file, quiet():
        start = file.read(16)
        file.seek(0)
        if not start:
            raise UnreadableError("the file is empty")
        decode = _decode_tiff if start[:4] in _TIFF_STARTS else _decode_plain
        image, lack = decode(file, start, path, gray)
    if lack and truncated == "error":
        raise UnreadableError(lack)
    if image.dtype == np.float32 and not np.isfinite(image).all():
        row, column = np.argwhere(~np.isfinite(image))[0][:2]
        raise UnreadableError(
            f"pixels must be finite numbers; the one in row {row}, column {column} is "
            "NaN or infinite"
        )
    resized = image if size is None else resize(image, size)
    return Frame(resized, (image.shape[0], image.shape[1]), lack)


def _decode_plain(
    file: BinaryIO, start: bytes, path: Path, gray: bool
) -> tuple[NDArray[Any], str]:
    """Decode what is no TIFF; also say what is wrong with it."""
    plug_in = find_plug_in(start, path)
    if os.fstat(file.fileno()).st_size > MAX_BYTES:
        raise UnreadableError(f"it is larger than {MAX_BYTES} bytes, as no image is")
    data = file.read()
    if start.startswith(START):
        data, frames = tidy_png(data)
        refuse_several(frames, "frames")
    with plug_in(io.BytesIO(data)) as image:
        check_claim(*image.size)
        check_one_picture(image)
        check_depth(image, data)
        lack = load(image, data, lambda: plug_in(io.BytesIO(data)))
        return _to_array(image, gray), lack


def _to_array(image: Image.Image, gray: bool) -> NDArray[Any]:
    """Turn a decoded image upright, without alpha or palette, into an array."""
    _turn(image)
    if image.mode.startswith("I"):  # "I;16"; "I" in older Pillow and of PPM files
        return np.array(image).astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    image.info.pop("transparency", None)  # or conversion would warn about it
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    colour = image.convert("RGB")
    return np.array(colour.convert("L") if gray else colour)


def _turn(image: Image.Image) -> None:
    """Turn an image as its EXIF block says; if that is broken, leave it as stored."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # whatever Pillow stumbles over in these bytes
        return


def _decode_tiff(
    file: BinaryIO, start: bytes, path: Path, gray: bool
) -> tuple[NDArray[Any], str]:
    """Decode a TIFF file; also say what is wrong with it."""
    import tifffile  # comes with scikit-image

    with tifffile.TiffFile(file) as tiff:
        page = check_page(tiff, os.fstat(file.fileno()).st_size)
        if not _suits_pillow(page):
            return decode_page(page, file, gray), ""
        file.seek(0)
        with TiffImageFile(file) as image:  # has more decompressors than tifffile
            check_claim(*image.size)
            lack = load(image, b"", lambda: TiffImageFile(file))
            array = _to_array(image, gray)
        # Pillow inverts 8 bits only.
        inverted = array.dtype == np.uint16 and ink(page) == "MINISWHITE"
        return ~array if inverted else array, lack


def _suits_pillow(page: Any) -> bool:
    """Whether Pillow keeps the bits of a page and does not find it too large."""
    tile = page.tilewidth * page.tilelength
    largest = max(page.imagewidth * page.imagelength, tile)
    dtype = str(page.dtype)
    return largest <= (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) and (
        dtype in ("bool", "uint8") or (dtype, page.samplesperpixel) == ("uint16", 1)
    )
