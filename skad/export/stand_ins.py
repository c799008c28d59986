"""Images that stand in for the training images, which a detector does not hold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.datasets import SURFACES, load_surfaces
from skad.images.resizing import resize
from skad.scoring.anomaly_map import Mapper

WORDS = "photographs of skad.datasets and noise, matched to the training images"
_TILE = 170  # pixels, the largest that there is
_NOISE = (0.1, 1.0)  # standard deviations of noise, of the training images'
_MOST = 2.0  # standard deviations that a pixel is off
_MEAN, _STD = 0.5, 0.25  # where nothing is known of the training images


def stand_ins(mapper: Mapper, shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    """Return 8 images (8, H, W, C): three surfaces, good and with a defect, and noise.

    Pixels have the mean and the standard deviation of the training images.
    """
    rng = np.random.default_rng(0)
    tiles = [
        tile
        for name in SURFACES
        for tile in load_surfaces(name, tile_size=_TILE, n_train=1, n_test=2).test
    ]
    planes = [resize(tile.astype(np.float32), shape[:2]) for tile in tiles]
    standardised = [(plane - plane.mean()) / plane.std() for plane in planes]
    images = [np.repeat(plane[..., None], shape[2], 2) for plane in standardised]
    images += [spread * rng.standard_normal(shape) for spread in _NOISE]

    preparation: Any = getattr(mapper, "preparation", None)
    mean, std = _MEAN, _STD
    if preparation is not None:
        mean, std = preparation.mean, preparation.std
    pixels = mean + std * np.clip(images, -_MOST, _MOST)  # 8, H, W, C
    if dtype == "float32":
        return pixels.astype(np.float32)
    top = np.iinfo(dtype).max
    return np.rint(np.clip(pixels, 0, 1) * top).astype(dtype)
