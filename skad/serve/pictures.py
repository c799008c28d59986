"""From the bytes of an image file to what a model takes, and to small pictures."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skad.images.decoding import Frame, Reader
from skad.images.pillow import UnreadableError, size_of
from skad.images.resizing import Size
from skad.serve.errors import Refused

_SIDE = 384  # pixels of a small picture's longer side, at most


def read(data: bytes, reader: Reader, most_pixels: int) -> Frame:
    """Decode an image file; Refused tells why not."""
    rule = f"an image must have at most {most_pixels} pixels"
    try:
        height, width = size_of(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise Refused(413, f"{rule}; it has far more") from None
    except UnreadableError as error:
        raise Refused(422, f"the file cannot be read: {error}") from None
    except Exception as error:  # of a decoder, for a damaged header
        raise Refused(422, f"the header of the image is damaged: {error}") from None
    if height * width > most_pixels:
        raise Refused(413, f"{rule}; got {width} x {height}")
    try:
        return reader.read_bytes(data, "in the body")
    except ValueError as error:
        raise Refused(422, str(error)) from None


def map_levels(anomaly_map: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Return a map from 0 to 255, which is twice the threshold or more."""
    unit = anomaly_map / max(2 * threshold, float(np.finfo(np.float32).tiny))
    return (255 * np.clip(unit, 0, 1) + 0.5).astype(np.uint8)


def map_png(anomaly_map: NDArray[np.float32], threshold: float) -> str:
    """Return a map as 8-bit PNG in base64."""
    levels = Image.fromarray(map_levels(anomaly_map, threshold))
    return base64.b64encode(_encoded(levels, "PNG")).decode()


class Small(NamedTuple):
    """A small image and its map, to be encoded when somebody wants to see them."""

    image: Image.Image
    levels: Image.Image
    size: Size  # (height, width) of the file

    @classmethod
    def of(cls, frame: Frame, anomaly_map: Any, threshold: float) -> "Small":
        """Make both of a frame and its map."""
        image = Image.fromarray(_to_uint8(frame.image))
        levels = Image.fromarray(map_levels(anomaly_map, threshold))
        image.thumbnail((_SIDE, _SIDE))
        levels.thumbnail((_SIDE, _SIDE))
        return cls(image, levels, frame.size)

    def jpeg(self) -> bytes:
        """Return the image in the proportions of the file."""
        return _encoded(self._proportioned(self.image), "JPEG")

    def map_png(self) -> bytes:
        """Return the map in the proportions of the file."""
        return _encoded(self._proportioned(self.levels), "PNG")

    def _proportioned(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        scale = min(1.0, _SIDE / max(height, width))
        return image.resize(
            (max(1, round(width * scale)), max(1, round(height * scale)))
        )


def _encoded(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image (H, W[, C]) for viewing; floats from minimum to maximum."""
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        unit = (image - low) / max(high - low, float(np.finfo(np.float32).tiny))
        return (255 * unit + 0.5).astype(np.uint8)
    return image
