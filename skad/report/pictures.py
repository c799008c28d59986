"""Small pictures as data URIs: thumbnails, and anomaly maps as gray images."""

import io
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from skad.images.resizing import Size

LONGEST_SIDE = 384  # pixels of a thumbnail: sharp enough to be enlarged
_LONGEST_SIDE_OF_MAP = 128  # pixels: maps are smooth
_KIND = "WEBP" if features.check("webp") else "JPEG"


def thumbnail_size(size: Size) -> Size:
    """Return the (height, width) of a thumbnail of an image; none is enlarged."""
    shrunk = min(1, LONGEST_SIDE / max(size))
    return max(1, round(shrunk * size[0])), max(1, round(shrunk * size[1]))


def thumbnail(rgb: NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) as a data URI, with some loss."""
    return _data_uri(Image.fromarray(rgb), _KIND, quality=80)


def map_picture(anomaly_map: NDArray[np.floating]) -> dict[str, Any]:
    """Return a map (H, W) as a gray image: its data URI, "low" and "high".

    A gray level g stands for ``low + (g / 255) ** 2 * (high - low)``: the root keeps
    small values apart where one pixel is very large. Where the map is made smaller,
    the largest value of each cell stays, so that "high" is the map's maximum.
    """
    cells = anomaly_map.astype(np.float64)
    for axis in (0, 1):
        side = cells.shape[axis]
        n = min(side, _LONGEST_SIDE_OF_MAP * side // max(anomaly_map.shape) or 1)
        cells = np.maximum.reduceat(cells, np.arange(n) * side // n, axis)
    low, high = float(cells.min()), float(cells.max())
    degree = (cells - low) / (high - low) if high > low else np.ones_like(cells)
    gray = np.rint(255 * np.sqrt(degree)).astype(np.uint8)  # (h, w)
    uri = _data_uri(Image.fromarray(gray), "PNG", optimize=True)
    return {"uri": uri, "low": low, "high": high}


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    encoded = b64encode(content.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"
