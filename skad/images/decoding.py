"""One image file in, one array out; or an error that names it."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import check_size
from skad.images import pillow
from skad.images.pillow import UnreadableError
from skad.images.resizing import Size, check_bool, resize

PathLike = str | os.PathLike[str]


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
    return reader_of(image_size, gray).read(path).image


class Frame(NamedTuple):
    """An image as it was asked for, and the size of its file."""

    image: NDArray[Any]  # (H, W) or (H, W, 3)
    size: Size  # of the file, upright, before it was resized


class Reader(NamedTuple):
    """How image files are read."""

    size: Size | None  # that they are resized to; None: their own
    channels: int | None  # 1 (H, W), 3 (H, W, 3); None: those that a file has

    def read(self, path: PathLike) -> Frame:
        """Read a file; a FileNotFoundError or ValueError names one that it cannot."""
        path = Path(os.path.expanduser(path))
        if not os.path.exists(path):
            raise FileNotFoundError(f"no such image file: {path}")
        return self._explained(lambda: self._open(path), path)

    def read_bytes(self, data: bytes, name: str) -> Frame:
        """Read the bytes of a file; a ValueError says why it cannot, and the name."""
        return self._explained(lambda: self._decode(io.BytesIO(data)), name)

    def _explained(self, decode: Callable[[], Frame], name: PathLike) -> Frame:
        """Decode, and tell in words why that fails."""
        try:
            return decode()
        except UnreadableError as error:
            reason = str(error)
        except MemoryError:
            reason = "there is not enough memory to decode it"
        except Exception as error:  # whatever a decoder has for a bad file
            reason = "it is damaged, ends early or is of a kind that is not supported"
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            elif " " in str(error):
                reason += f"; its decoder says: {error}"
        raise ValueError(f"cannot read the image {name}: {reason}")

    def _open(self, path: Path) -> Frame:
        if not path.is_file():  # a pipe would never open
            raise UnreadableError("it is a folder or a device, not a file")
        if not path.stat().st_size:
            raise UnreadableError("the file is empty")
        with path.open("rb") as file:
            return self._decode(file)

    def _decode(self, file: BinaryIO) -> Frame:
        image = pillow.decode(file, self.channels == 1)
        if image.dtype == np.float32 and not np.isfinite(image).all():
            raise UnreadableError("pixels must be finite numbers; some are NaN or inf")
        resized = image if self.size is None else resize(image, self.size)
        if self.channels == 3 and resized.ndim == 2:
            resized = np.repeat(resized[:, :, np.newaxis], 3, axis=2)  # (H, W, 3)
        return Frame(resized, (image.shape[0], image.shape[1]))


def reader_of(image_size: Any, gray: Any) -> Reader:
    """Check both options, and return what reads files by them."""
    check_bool("gray", gray)
    size = None if image_size is None else check_size("image_size", image_size)
    return Reader(size, 1 if gray else None)


def reader_for(image_shape: tuple[int, ...]) -> Reader:
    """Return what reads files as images (H, W), (H, W, 1) or (H, W, 3)."""
    shape = tuple(image_shape)
    if len(shape) < 2 or shape[2:] not in ((), (1,), (3,)):
        raise ValueError(
            f"the model was fitted on images of shape {shape}, but files are gray "
            "(height, width) or colour (height, width, 3); pass arrays in Python "
            "instead: skad.load(model).score_samples(X)"
        )
    return Reader((shape[0], shape[1]), 3 if shape[2:] == (3,) else 1)
