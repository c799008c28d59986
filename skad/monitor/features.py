"""Simple features of images, and which of them changed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FEWEST_BEFORE = 10  # images, to know how much a feature varies
_NOTABLE = 4.0  # standard errors
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
    Pixels of uint8 and uint16 count from 0 to 1.
    """
    pixels = np.atleast_2d(np.asarray(image))
    scale = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    pixels = pixels.astype(np.float32) / np.float32(scale)
    gray = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    brightness, contrast = float(gray.mean()), float(gray.std())
    steps = [
        np.abs(np.diff(gray, axis=axis)).mean()
        for axis in (0, 1)
        if gray.shape[axis] > 1
    ]
    sharpness = float(np.mean(steps)) / contrast if contrast else 0.0
    found = {"brightness": brightness, "contrast": contrast, "sharpness": sharpness}
    if pixels.ndim == 3 and pixels.shape[2] > 1 and brightness:
        means = pixels.mean(axis=(0, 1)) / brightness / pixels.shape[2]
        names = _RGB if len(means) == 3 else range(len(means))
        found |= {f"share of {names[i]}": float(one) for i, one in enumerate(means)}
    return found


def changes(values: Mapping[str, NDArray[np.float64]], start: int) -> dict[str, Change]:
    """Compare values (n,) by name before an image with those since, NaN left out."""
    found = {}
    for name, series in values.items():
        before, since = (part[~np.isnan(part)] for part in np.split(series, [start]))
        if len(since):
            found[name] = _compare(before, since)
    return found


def _compare(before: NDArray[np.float64], since: NDArray[np.float64]) -> Change:
    if len(before) < _FEWEST_BEFORE:
        usual = float(np.median(before)) if len(before) else math.nan
        return Change(usual, float(np.median(since)), math.nan)
    usual, now = float(np.median(before)), float(np.median(since))
    spread = 1.4826 * float(
        np.median(np.abs(before - usual))
    )  # of a normal distribution
    error = 1.2533 * spread * math.sqrt(1 / len(before) + 1 / len(since))  # of medians
    off = now - usual
    n_errors = off / error if error else math.copysign(math.inf, off) if off else 0.0
    return Change(usual, now, n_errors)
