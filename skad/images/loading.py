"""All pixels of an opened image; what its decoder would leave out silently is found."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from skad.images.jpeg import load_jpeg

_SILENT = ("zip", "gif")  # codecs that are content where data end before the last row
_TRUNCATED = "the image data are truncated: they end before the last pixel"

_BYTES = {"L": 1, "P": 1, "LA": 2, "I;16": 2, "RGB": 3, "RGBA": 4}  # of a pixel
_MOST_BYTES = 4

Box = tuple[int, int, int, int]  # left, upper, right, lower

_MARK = np.random.default_rng(0).bytes(1024)  # no row of an image looks like that
_NEGATIVE = bytes(255 - byte for byte in _MARK)


def load(
    image: ImageFile.ImageFile, data: bytes, again: Callable[[], ImageFile.ImageFile]
) -> str:
    """Decode an opened image.

    Parameters
    ----------
    image : PIL.ImageFile.ImageFile
        It has its pixels afterwards.
    data : bytes
        Its file.
    again : callable
        Opens it once more.

    Returns
    -------
    lack : str
        "" if all of it is there; else what is wrong, and the image has the pixels that
        could be decoded.

    Raises
    ------
    Exception
        Any that a decoder has, if it gives no pixel at all.
    """
    if image.tile and image.tile[0][0] in _SILENT:
        return _load_marked(image, again)
    try:
        if isinstance(image, JpegImageFile):
            return "" if load_jpeg(image, data) else _TRUNCATED
        image.load()
    except OSError as error:
        return _in_spite_of(error, image)
    return ""


def _in_spite_of(error: OSError, image: ImageFile.ImageFile) -> str:
    """Keep the pixels that were decoded before an error; raise it if there are none."""
    if getattr(image, "_im", None) is None or image.im.getbbox() is None:
        raise error
    image.tile = []
    return f"the image data are truncated or damaged ({error})"


def _load_marked(
    image: ImageFile.ImageFile, again: Callable[[], ImageFile.ImageFile]
) -> str:
    """Load what a decoder may stop amid without a word."""
    left, error = _rows_left(image, _MARK)
    # Pixels may look like the mark, but not like its negative, too.
    if left and not error and not _rows_left(again(), _NEGATIVE)[0]:
        return ""
    for box in left:
        image.im.paste(0, box)
    if error:
        return _in_spite_of(error, image)
    return _TRUNCATED if left else ""


def _rows_left(
    image: ImageFile.ImageFile, mark: bytes
) -> tuple[list[Box], OSError | None]:
    """Decode over marked rows; return those that still bear the mark, and an error.

    Of the last two rows one belongs to the last pass of an interlaced image.
    """
    x0, y0, x1, y1 = image.tile[0][1] or (0, 0, *image.size)
    boxes = [(x0, y, x1, y + 1) for y in range(max(y0, y1 - 2), y1)]
    prepare = image.load_prepare
    marked = b""

    def prepare_and_mark() -> None:
        nonlocal marked
        prepare()
        pattern = mark * ((x1 - x0) * _MOST_BYTES // len(mark) + 1)
        row = Image.new(image.im.mode, (x1 - x0, 1))
        n_bytes = (x1 - x0) * _BYTES[row.mode] if row.mode in _BYTES else None
        row.frombytes(pattern[: n_bytes or len(row.tobytes())])
        marked = row.tobytes()
        for box in boxes:
            image.im.paste(row.im, box)

    image.load_prepare = prepare_and_mark  # type: ignore[method-assign]
    failure = None
    try:
        image.load()
    except OSError as error:
        failure, image.tile = error, []
        if not marked:
            raise
    last = image.crop((x0, boxes[0][1], x1, y1)).tobytes()
    size = len(marked)
    left = [
        box for i, box in enumerate(boxes) if last[i * size : (i + 1) * size] == marked
    ]
    return left, failure
