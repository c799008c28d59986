"""One image file in, one array out; or a reason why not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.images import pillow
from skad.images.pillow import UnreadableError
from skad.images.resizing import Size, check_options, resize

PathLike = str | os.PathLike[str]

_LISTED = 10  # files that one warning or error spells out


def read_image(
    path: PathLike, image_size: int | Size | None = None, gray: bool = False
) -> NDArray[Any]:
    """Read one image file, rotated according to its EXIF orientation.

    Parameters
    ----------
    path : path
        A PNG, JPEG, TIFF, BMP, WebP, GIF or PPM file, recognised by its contents, not
        by its name.
    image_size : int or (height, width), default=None
        Resize to this many pixels, with antialiasing; an int means a square. None
        keeps the size of the file.
    gray : bool, default=False
        Convert colour to luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601-7).

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
        Gray or RGB, without alpha: uint8, uint16 for 16-bit files, or float32 as stored
        for gray files of floating-point numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read; the message gives the reason. This includes files
        that end early, with several frames or pages, with NaN or infinite pixels, with
        more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels (179 million), and with more
        than 8 bits if Pillow would reduce them to 8, such as 16-bit colour PNG files.
    """
    return read_frame(path, check_options(image_size, gray), 1 if gray else None).image


class Frame(NamedTuple):
    """An image as it was asked for, and the size of its file."""

    image: NDArray[Any]  # (H, W) or (H, W, 3)
    size: Size  # of the file, upright, before it was resized


def read_frame(path: PathLike, size: Size | None, channels: int | None) -> Frame:
    """Read one image file with 1 channel (H, W), 3 (H, W, 3) or, None, those it has."""
    path = Path(os.path.expanduser(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such image file: {path}")
    frame = decode_or_say_why(path, size, channels)
    if isinstance(frame, str):
        raise ValueError(f"cannot read the image {path}: {frame}")
    return frame


def decode_or_say_why(
    path: Path, size: Size | None, channels: int | None
) -> Frame | str:
    """Read one image file as `read_frame` does, or return the reason why not."""
    try:
        return _decode(path, size, channels)
    except UnreadableError as error:
        return str(error)
    except MemoryError:
        return "there is not enough memory to decode it"
    except Exception as error:  # whatever a decoder has for a bad file
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        reason = "it is damaged, ends early or is of a kind that is not supported"
        return f"{reason}; its decoder says: {error}" if " " in str(error) else reason


def name_files(files: Sequence[tuple[Path, str]]) -> str:
    """Name some image files, each with a reason."""
    lines = [f"  {path}: {reason}" for path, reason in files[:_LISTED]]
    if len(files) > _LISTED:
        lines.append(f"  and {len(files) - _LISTED} more")
    return "\n".join([f"{len(files)} image file(s):", *lines])


def _decode(path: Path, size: Size | None, channels: int | None) -> Frame:
    """Decode and resize."""
    if path.exists() and not path.is_file():  # a pipe would never open
        raise UnreadableError("it is a folder or a device, not a file")
    if not path.stat().st_size:
        raise UnreadableError("the file is empty")
    with path.open("rb") as file:
        image = pillow.decode(file, channels == 1)
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise UnreadableError("pixels must be finite numbers; some are NaN or infinite")
    resized = image if size is None else resize(image, size)
    if channels == 3 and resized.ndim == 2:
        resized = np.repeat(resized[:, :, np.newaxis], 3, axis=2)  # (H, W, 3)
    return Frame(resized, (image.shape[0], image.shape[1]))
