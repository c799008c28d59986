"""One image file in, one array out; or a reason why not."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from skad.common.warnings import warn
from skad.images.formats import UnreadableError, check_single, open_image, quiet
from skad.images.loading import load
from skad.images.resizing import Size, as_type, check_options, resize
from skad.images.tiff import decode_page, only_page, suits_pillow

PathLike = str | os.PathLike[str]

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, as Pillow's mode "L"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEADER = 4096  # bytes that hold the headers of JPEG 2000 and AVIF
_LISTED = 10  # files that one warning or error spells out


def read_image(
    path: PathLike,
    image_size: int | Size | None = None,
    gray: bool = False,
    *,
    truncated: str = "error",
) -> NDArray[Any]:
    """Read one image file, rotated according to its EXIF orientation.

    Parameters
    ----------
    path : path
        A PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF or PPM file, recognised by
        its contents, not by its name.
    image_size : int or (height, width), default=None
        Resize to this many pixels, with antialiasing; an int means a square. None
        keeps the size of the file.
    gray : bool, default=False
        Convert colour to luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601-7).
    truncated : {"error", "warn"}, default="error"
        What to do with a file that ends early. "warn" reads what can be decoded, the
        rest black or gray, with a warning.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
        Gray or RGB, without alpha: uint8 in 0..255, uint16 in 0..65535 for 16-bit
        files, float32 as stored for files of floating-point numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read; the message gives the reason. This includes files
        with several frames or pages, with more than 2**28 pixels, with NaN or infinite
        pixels, and with more than 8 bits if Pillow would reduce them to 8, such as
        16-bit PNG files with colour or alpha.

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
    frame = read_frame(path, size, 1 if gray else None, check_truncated(truncated))
    if frame.damage:
        warn_truncated([(path, frame.damage)])
    return frame.image


class Frame(NamedTuple):
    """An image as it was asked for, and what its file says of it."""

    image: NDArray[Any]  # (H, W) or (H, W, 3)
    size: Size  # of the file, upright, before it was resized
    damage: str  # what is missing of it, mostly ""


def read_frame(
    path: PathLike, size: Size | None, channels: int | None, truncated: str = "error"
) -> Frame:
    """Read one image file with 1 channel (H, W), 3 (H, W, 3) or, None, those it has."""
    path = Path(os.path.expanduser(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {path}")
    frame = decode_or_say_why(path, size, channels, truncated)
    if isinstance(frame, str):
        raise ValueError(f"cannot read the image {path}: {frame}")
    return frame


def decode_or_say_why(
    path: Path, size: Size | None, channels: int | None, truncated: str
) -> Frame | str:
    """Read one image file as `read_frame` does, or return the reason why not."""
    try:
        return _decode(path, size, channels, truncated)
    except UnreadableError as error:
        return str(error)
    except MemoryError:
        return "there is not enough memory to decode it"
    except Exception as error:  # whatever a decoder has for a bad file
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        reason = "it is damaged, ends early or is of a kind that is not supported"
        return f"{reason}; its decoder says: {error}" if " " in str(error) else reason


def check_truncated(value: Any) -> str:
    """Check what to do with files that end early."""
    if value not in ("error", "warn"):
        raise ValueError(f"truncated must be 'error' or 'warn'; got {value!r}")
    return value


def warn_truncated(files: Sequence[tuple[PathLike, str]]) -> None:
    """Name files that were read although they end early."""
    warn(f"read without what is missing, {name_files('truncated ', files)}")


def name_files(adjective: str, files: Sequence[tuple[PathLike, str]]) -> str:
    """Name some image files, each with a reason."""
    lines = [f"  {path}: {reason}" for path, reason in files[:_LISTED]]
    if len(files) > _LISTED:
        lines.append(f"  and {len(files) - _LISTED} more")
    return "\n".join([f"{len(files)} {adjective}image file(s):", *lines])


def _decode(
    path: Path, size: Size | None, channels: int | None, truncated: str
) -> Frame:
    """Decode and resize."""
    if not os.path.exists(path):
        raise UnreadableError("no such image file")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UnreadableError("it is a folder or a device, not a file")
    with path.open("rb") as file, quiet():
        start = file.read(4)
        file.seek(0)
        if not start:
            raise UnreadableError("the file is empty")
        decode = _decode_tiff if start in _TIFF_STARTS else _decode_plain
        image, damage = decode(file, channels == 1)
    if damage and truncated == "error":
        raise UnreadableError(damage)
    if image.dtype == np.float32 and not np.isfinite(image).all():
        row, column = np.argwhere(~np.isfinite(image))[0][:2]
        raise UnreadableError(
            f"pixels must be finite numbers; the one in row {row}, column {column} is "
            "NaN or infinite"
        )
    resized = image if size is None else resize(image, size)
    if channels == 3 and resized.ndim == 2:
        resized = np.repeat(resized[:, :, np.newaxis], 3, axis=2)  # (H, W, 3)
    return Frame(resized, (image.shape[0], image.shape[1]), damage)


def _decode_plain(file: BinaryIO, gray: bool) -> tuple[NDArray[Any], str]:
    """Decode what is no TIFF; also say what is missing of it."""
    header = file.read(_HEADER)
    file.seek(0)
    with open_image(file) as image:
        if _is_deep(image, header):
            raise UnreadableError(
                f"this {image.format} image has more than 8 bits per channel and would "
                "be cut to 8 bits; save it as 16-bit TIFF, 16-bit gray PNG or 8-bit PNG"
            )
        if image.format != "MPO":  # whose further pictures are mostly previews
            check_single(getattr(image, "n_frames", 1), "frames")
        loaded, damage = load(image, file)
        return _to_array(loaded, gray), damage


def _is_deep(image: ImageFile.ImageFile, header: bytes) -> bool:
    """Whether Pillow would drop bits of an opened image in silence."""
    args = image.tile[0][3] if image.tile else ""
    if image.format == "PNG":
        return ";16" in str(args) and not image.mode.startswith("I")
    if image.format == "PPM":
        return image.mode == "RGB" and isinstance(args, tuple) and args[-1] > 255
    if image.format == "JPEG2000":  # ITU-T T.800, A.5.1: bits less 1
        place = header.find(b"\xff\x4f\xff\x51") + 42
        return image.mode != "I;16" and header[place : place + 1] > b"\x07"
    # AVIF with 10 or 12 bits: AV1-ISOBMFF 2.3.3
    return re.search(rb"av1C\x81.[\x40-\x7f\xc0-\xff]", header, re.DOTALL) is not None


def _to_array(image: Image.Image, gray: bool) -> NDArray[Any]:
    """Turn a decoded image upright, without alpha or palette, into an array."""
    with suppress(Exception):  # whatever Pillow stumbles over in a broken EXIF block
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # "I;16"; "I" in PPM files
        return np.array(image).astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    image.info.pop("transparency", None)  # or conversion would warn about it
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))
    colour = image.convert("RGB")
    return np.array(colour.convert("L") if gray else colour)


def _decode_tiff(file: BinaryIO, gray: bool) -> tuple[NDArray[Any], str]:
    """Decode a TIFF file; also say what is missing of it."""
    import tifffile  # comes with scikit-image; slow to import

    with tifffile.TiffFile(file) as tiff:
        page = only_page(tiff, file)
        if suits_pillow(page):
            file.seek(0)
            with open_image(file) as image:
                loaded, damage = load(image, file)
                array = _to_array(loaded, gray)
            # Pillow inverts 8 bits only.
            is_inverted = page.photometric.name == "MINISWHITE"
            return ~array if is_inverted and array.dtype == np.uint16 else array, damage
        array = decode_page(page)
    if gray and array.ndim == 3:
        array = as_type(array @ np.array(_LUMINANCE), array.dtype)  # (H, W)
    return array, ""
