"""Simple features of images, and which of them changed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.robust import median_and_spread

_FEWEST_BEFORE = 10  # images, to know how much a feature varies
_NOTABLE = 4.0  # standard errors
_ERROR_OF_MEDIAN = 1.2533  # of normal numbers; that of the mean is 1
_RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class Change:
    """The medians of a feature before and since an estimated change.

    `n_errors` is their difference in standard errors; NaN if too few images came
    before. It describes, and is no test: the moment of the change was chosen.
    """

    before: float
    since: float
    n_errors: float

    @property
    def is_notable(self) -> bool:
        """Whether the medians differ by more than 4 standard errors."""
        return abs(self.n_errors) > _NOTABLE


def image_features(image: ArrayLike) -> dict[str, float]:
    """Return the features of an image (H, W) or (H, W, C).

    Brightness and contrast are the mean and the standard deviation of its pixels;
    sharpness is the mean difference between neighbours, relative to the contrast, which
    light does not change. Of several channels, each one's share in the brightness.
    Pixels of uint8 and uint16 count from 0 to 1. Five digits are kept.
    """
    given = np.asarray(image)
    scale = np.iinfo(given.dtype).max if given.dtype.kind == "u" else 1
    pixels = np.atleast_3d(given).astype(np.float32) / np.float32(scale)  # H, W, C
    n_channels = pixels.shape[2]
    gray = pixels @ np.full(n_channels, 1 / n_channels, np.float32)  # H, W
    means = pixels.mean(axis=0).mean(axis=0)  # C; faster than over both axes at once
    steps = [np.abs(np.diff(gray, axis=axis)).ravel() for axis in (0, 1)]
    contrast = gray.std()
    found = {
        "brightness": gray.mean(),
        "contrast": contrast,
        "sharpness": np.concatenate(steps).mean() / contrast if contrast else 0,
    }
    if n_channels > 1 and means.sum():
        names = _RGB if n_channels == 3 else range(n_channels)
        shares = zip(names, means / means.sum(), strict=True)
        found |= {f"share of {name}": share for name, share in shares}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def changes(values: Mapping[str, NDArray[np.float64]], start: int) -> dict[str, Change]:
    """Compare values (n,) by name before an image with those since, NaN left out."""
    found = {}
    for name, series in values.items():
        before, since = (part[~np.isnan(part)] for part in np.split(series, [start]))
        if len(since):
            found[name] = _compare(before, since)
    return found


def _compare(before: NDArray[np.float64], since: NDArray[np.float64]) -> Change:
    usual, spread = median_and_spread(before) if len(before) else (math.nan, math.nan)
    now, n_errors = float(np.median(since)), math.nan
    if len(before) >= _FEWEST_BEFORE:
        error = _ERROR_OF_MEDIAN * spread * math.sqrt(1 / len(before) + 1 / len(since))
        n_errors = (now - usual) / max(error, 1e-300)
    return Change(usual, now, n_errors)
