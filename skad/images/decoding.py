"""One image file in, one array out; or a reason why not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images import pillow, tiff
from skad.images.pillow import UnreadableError
from skad.images.resizing import Size, check_options, resize

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
        Gray or RGB, without alpha: uint8, uint16 for 16-bit files, or float32 as stored
        for files of floating-point numbers.

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
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would never open
        raise UnreadableError("it is a folder or a device, not a file")
    with path.open("rb") as file, pillow.quiet():
        start = file.read(4)
        file.seek(0)
        if not start:
            raise UnreadableError("the file is empty")
        decoder = tiff if start in _TIFF_STARTS else pillow
        image, damage = decoder.decode(file, channels == 1)
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
