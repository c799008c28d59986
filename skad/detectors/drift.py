"""Images unlike the good ones: another light, exposure, bit depth or channel order."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from skad.common.warnings import warn
from skad.network.preparation import to_unit_range

# Means, means of the pixels between the quartiles, standard deviations: (n, 3, C).
Statistics = NDArray[np.float64]

_MAX_SAMPLED = 2**14  # pixels of an image
_MIN_PIXELS = 256  # of an image: fewer say too little
_MAX_KEPT = 512  # images
_MOST = 0.75  # share of the images of a call that must be off, and on one side

# How far off means of n images may be: so far that no good and no defective images of
# docs/benchmarks.md are told, alone or in batches.
_SPREADS = 4.0  # standard deviations between good images …
_SHARES = (0.1, 0.2)  # … and so much + so much / sqrt(n) of the usual mean, or of
_CONTRASTS = 5.0  # standard deviations of pixels, if that is less
_MIN_CONTRAST = 0.05  # of the mean: flat images have noise, too
_TINY = np.finfo(float).tiny


class DriftWarning(UserWarning):
    """Most images of a call are unlike those that the threshold was set on."""


def image_statistics(
    image: np.ndarray, roi: NDArray[np.bool_] | None
) -> Statistics | None:
    """Return statistics (3, C) of an image (H, W, C); None for one of few pixels."""
    pixels = image.reshape(-1, image.shape[2]) if roi is None else image[roi]  # k, C
    if len(pixels) < _MIN_PIXELS:
        return None
    # In odd steps: an even one may be a multiple of the width, and see a few columns.
    pixels = to_unit_range(pixels[:: len(pixels) // _MAX_SAMPLED | 1])
    return np.stack([pixels.mean(0), trim_mean(pixels, 0.25), pixels.std(0)])


def statistics_to_keep(found: Iterable[Statistics | None]) -> Statistics | None:
    """Return those of some images that a detector compares others with, (n, 3, C)."""
    all_found = [one for one in found if one is not None]
    if not all_found:
        return None
    kept = np.linspace(0, len(all_found) - 1, min(len(all_found), _MAX_KEPT))
    return np.stack(all_found)[kept.round().astype(int)]


def warn_if_unlike(found: Iterable[Statistics], threshold: Any) -> None:
    """Warn if most images are unlike those of a threshold, if there is any."""
    if threshold is not None and threshold.statistics is not None:
        why = why_unlike(np.stack(list(found)), threshold.statistics)
        if why is not None:
            warn(_what_to_do(why), DriftWarning)


def _what_to_do(why: str) -> str:
    return (  # without figures, so that Python shows it once, not for every batch
        f"These images are unlike those that set the threshold: {why}. Scores and "
        "verdicts are not reliable. Convert them to the form of the others; if all "
        "images are to look like this, call calibrate with good ones, or fit again."
    )


def why_unlike(seen: Statistics, good: Statistics) -> str | None:
    """Say in what most of some images are unlike good ones; None if they are not."""
    found, usual, spread = seen[:, :2], np.median(good[:, :2], 0), good[:, :2].std(0)
    contrast = np.sqrt(np.mean(good[:, 2] ** 2) + np.mean(good[:, 0].var(0)))
    contrast = max(contrast, _MIN_CONTRAST * np.abs(usual[0]).max(), _TINY)
    if seen.shape[2] > 1 and _are_reversed(seen[:, 0], good[:, 0], contrast):
        return "their channels come in another order, as BGR for RGB"
    scale, off = np.abs(usual) + contrast, found - usual  # n, 2, C
    if min(found.min(), usual.min()) >= 0:  # a ratio is as far off as its inverse
        off = scale * np.log1p(off / scale)
    share = _SHARES[0] + _SHARES[1] / math.sqrt(len(seen))
    off /= _SPREADS * spread + share * np.minimum(scale, _CONTRASTS * contrast)
    # A large defect moves the mean, an outline that moves a little the mean between the
    # quartiles, and another light both.
    for words, side in (("brighter", off), ("darker", -off)):
        if (side > 1).all(1).mean(0).max() >= _MOST:
            return f"they are {words}, as with another light, exposure or bit depth"
    return None


def _are_reversed(means: np.ndarray, known: np.ndarray, contrast: float) -> bool:
    """Tell whether most means (n, C) are those of good images in reversed order."""
    colours, good = (some - some.mean(1, keepdims=True) for some in (means, known))
    usual = np.median(good, 0)  # C
    gap, spread = np.abs(usual - usual[::-1]), (known - known[:, ::-1]).std(0)
    if not (gap > _SPREADS * spread + 0.3 * contrast).any():  # as where all are gray
        return False
    own = np.abs(colours - usual).max(1)  # n
    other = np.abs(colours - usual[::-1]).max(1)
    return bool(np.mean(3 * other < own) >= _MOST)
