"""Images unlike the good ones: another light, exposure, bit depth or channel order."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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

_warned: ContextVar[list[bool] | None] = ContextVar("skad_drift_warned", default=None)


class DriftWarning(UserWarning):
    """Most images of a call are unlike those that the threshold was set on."""


class Watch:
    """Collects statistics of images while they are read; only the roi counts."""

    def __init__(self, roi: NDArray[np.bool_] | None = None) -> None:
        self._roi = roi
        self._found: dict[int, Statistics] = {}

    def __call__(self, places: np.ndarray, batch: np.ndarray) -> None:
        """Look at the images (k, H, W, C) at these places of X."""
        for place, image in zip(places, batch, strict=True):
            found = _image_statistics(image, self._roi)
            if found is not None:
                self._found[int(place)] = found

    def statistics(self, places: Iterable[int] | None = None) -> Statistics | None:
        """Return statistics of all images or of some; None if they are too small."""
        places = self._found if places is None else map(int, places)
        found = [self._found[place] for place in places if place in self._found]
        return np.stack(found) if found else None

    def kept(self, places: Iterable[int] | None = None) -> Statistics | None:
        """Return no more of them than a detector keeps of its good images."""
        found = self.statistics(places)
        if found is None or len(found) <= _MAX_KEPT:
            return found
        return found[np.linspace(0, len(found) - 1, _MAX_KEPT).round().astype(int)]


@contextmanager
def one_warning() -> Iterator[None]:
    """Warn of drift at most once in here, in a call that takes batch by batch."""
    token = _warned.set([])
    try:
        yield
    finally:
        _warned.reset(token)


def warn_if_unlike(seen: Statistics | None, good: Statistics | None) -> None:
    """Warn if most of some images are unlike the good ones, and say in what."""
    warned = _warned.get()
    if seen is None or good is None or warned:
        return
    why = why_unlike(seen, good)
    if why is None:
        return
    warn(
        f"These images are unlike those that set the threshold: {why}. Scores and "
        "verdicts are not reliable. Bring the images to the form of the others; if all "
        "are to look like this from now on, call calibrate with good ones, or train "
        "anew.",
        DriftWarning,
    )
    if warned is not None:
        warned.append(True)


def why_unlike(seen: Statistics, good: Statistics) -> str | None:
    """Say in what most of some images are unlike good ones; None if they are not."""
    found, usual, spread = seen[:, :2], np.median(good[:, :2], 0), good[:, :2].std(0)
    contrast = math.sqrt(np.mean(good[:, 2] ** 2) + np.mean(good[:, 0].var(0)))
    contrast = max(contrast, _MIN_CONTRAST * float(np.abs(usual[0]).max()), _TINY)
    error = contrast / math.sqrt(len(seen))  # of a mean, roughly
    if _are_reversed(seen[:, 0], good[:, 0], error):
        return "their channels come in another order, as BGR for RGB"
    scale = np.abs(usual) + error
    off = found - usual  # n, 2, C
    if min(found.min(), usual.min()) >= 0:  # a ratio is as far off as its inverse
        off = scale * np.log((found + error) / scale)
    share = _SHARES[0] + _SHARES[1] / math.sqrt(len(seen))
    off /= _SPREADS * spread + share * np.minimum(scale, _CONTRASTS * contrast)
    # A large defect moves the mean, an outline that moves a little the mean between the
    # quartiles, and another light both.
    brighter = ((off > 1).all(1).mean(0) >= _MOST).any()
    darker = ((off < -1).all(1).mean(0) >= _MOST).any()
    if not (brighter or darker):
        return None
    words = "brighter" if brighter else "darker"
    if min(found.min(), usual.min()) > 0:
        ratio = np.median(found[:, 0]) / np.median(usual[0])
        words += f" ({ratio:.3g} times as bright)"
    return f"they are {words}, as with another light, exposure or bit depth"


def _image_statistics(
    image: np.ndarray, roi: NDArray[np.bool_] | None
) -> Statistics | None:
    """Return statistics (3, C) of an image (H, W, C); None for one of few pixels."""
    height, width, n_channels = image.shape
    step = max(1, math.isqrt(height * width // _MAX_SAMPLED))
    pixels = (
        image[::step, ::step].reshape(-1, n_channels) if roi is None else image[roi]
    )
    pixels = to_unit_range(pixels[:: max(1, len(pixels) // _MAX_SAMPLED)])  # k, C
    if len(pixels) < _MIN_PIXELS:
        return None
    return np.stack([pixels.mean(0), trim_mean(pixels, 0.25), pixels.std(0)])


def _are_reversed(means: np.ndarray, known: np.ndarray, error: float) -> bool:
    """Tell whether most images have the colours of good ones in reversed order.

    By the means (n, C) of both; `error` is that of a mean.
    """
    if means.shape[1] < 3:
        return False
    colours, good = (some - some.mean(1, keepdims=True) for some in (means, known))
    usual = np.median(good, 0)  # C
    gap, spread = np.abs(usual - usual[::-1]), (known - known[:, ::-1]).std(0)
    own = np.abs(colours - usual).max(1)  # n
    other = np.abs(colours - usual[::-1]).max(1)
    are_told_apart = bool((gap > _SPREADS * spread + 0.3 * error).any())
    return are_told_apart and bool(np.mean(3 * other < own) >= _MOST)
