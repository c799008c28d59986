"""Images unlike the good ones: another bit depth, channel order, exposure or light."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.network.preparation import to_unit_range

# Means, means of the pixels between the quartiles, standard deviations: (n, 3, C).
Statistics = NDArray[np.float64]

_SAMPLED = 2**14  # pixels of an image, at most
_FEWEST_PIXELS = 256  # of an image: fewer say too little
_MOST_KEPT = 512  # images
_MOST = 0.75  # share of the images of a call that must be off, and on one side
_BITS = (2, 4, 6, 8)  # 14, 12, 10 and 8 bits stored in 16; floats to 255 and to 1
_BITS_OFF = 0.5  # that the ratio of two means may be away from those

# How far off is far: found on the real images of docs/benchmarks.md. Good and defective
# ones, alone and in batches, come to at most 0.6 of these limits. In a sixteenth of
# their range, single images come to 0.9 (uneven light) and more, most of them to 2; by
# four they come to 1.1 and more.
_SPREADS = 6.0  # standard deviations between good images …
_SIGMAS = (0.5, 1.0)  # … and, of pixels, so many and so many / sqrt(n)
_LOG_SPREADS = 4.0
_LOGS = (0.1, 0.2)  # natural logarithms of a ratio, likewise
_ORDER_SIGMAS = 0.3  # / sqrt(n)
_ORDER_CLOSER = 3.0
_LEAST_SIGMA = 0.05  # of the mean: flat images have noise, too


_told: ContextVar[list[str] | None] = ContextVar("skad_drift_told", default=None)


class DriftWarning(UserWarning):
    """Most images of a call are unlike those that the threshold was set on."""


class Watch:
    """Takes statistics of images as they are read.

    Parameters
    ----------
    roi : ndarray of bool of shape (H, W), default=None
        The pixels that count.
    """

    def __init__(self, roi: NDArray[np.bool_] | None = None) -> None:
        self._roi = roi
        self._seen: dict[int, Statistics] = {}

    def __call__(self, places: np.ndarray, batch: np.ndarray) -> None:
        """Look at the images (k, H, W, C) at these places of X."""
        for place, image in zip(places, batch, strict=True):
            found = image_statistics(image, self._roi)
            if found is not None:
                self._seen[int(place)] = found

    def statistics(self, places: Iterable[int] | None = None) -> Statistics | None:
        """Return the statistics of the images, or of those at some places.

        None where there are none, as the images are too small.
        """
        places = self._seen if places is None else places
        seen = [self._seen[int(place)] for place in places if int(place) in self._seen]
        return np.stack(seen) if seen else None

    def kept(self, places: Iterable[int] | None = None) -> Statistics | None:
        """Return no more of them than a detector keeps of its good images."""
        found = self.statistics(places)
        if found is None or len(found) <= _MOST_KEPT:
            return found
        return found[np.linspace(0, len(found) - 1, _MOST_KEPT).round().astype(int)]


@contextmanager
def one_warning() -> Iterator[None]:
    """Warn no more than once of drift in here: in a call that takes batch by batch."""
    token = _told.set([])
    try:
        yield
    finally:
        _told.reset(token)


def warn_if_unlike(seen: Statistics | None, good: Statistics | None) -> None:
    """Warn where most of some images are unlike the good ones, and say in what."""
    told = _told.get()
    if seen is None or good is None or told:
        return
    why = why_unlike(seen, good)
    if why is None:
        return
    warn(
        f"These images are unlike those that set the threshold: {why}. Scores and "
        "verdicts are not to be relied on. Bring the images to the form of the others; "
        "if all are to look like this from now on, call calibrate with good ones, or "
        "train anew.",
        DriftWarning,
    )
    if told is not None:
        told.append(why)


def image_statistics(
    image: np.ndarray, roi: NDArray[np.bool_] | None = None
) -> Statistics | None:
    """Return statistics (3, C) of an image (H, W, C); None for one of few pixels."""
    height, width, _ = image.shape
    step = max(1, math.isqrt(height * width // _SAMPLED))
    pixels = image[::step, ::step]
    pixels = pixels.reshape(-1, pixels.shape[2]) if roi is None else image[roi]
    pixels = to_unit_range(pixels[:: max(1, len(pixels) // _SAMPLED)])  # k, C
    if len(pixels) < _FEWEST_PIXELS:
        return None
    quarter = len(pixels) // 4
    ordered = np.partition(pixels, (quarter, len(pixels) - quarter - 1), axis=0)
    middle = ordered[quarter : len(pixels) - quarter].mean(0)
    return np.stack([pixels.mean(0), middle, pixels.std(0)])


def why_unlike(seen: Statistics, good: Statistics) -> str | None:
    """Say in what most of some images are unlike good ones; None if they are not."""
    means, known = seen[:, 0], good[:, 0]
    pixels = math.sqrt(float(np.mean(good[:, 2] ** 2) + np.mean(known.var(0))))
    sigma = max(pixels, _LEAST_SIGMA * float(np.abs(known).mean(0).max()))
    if _reversed(means, known, sigma):
        return "their channels come in another order, as BGR for RGB"
    if max(_off(seen, good, sigma), _off_in_logs(seen, good, sigma)) <= 1:
        return None
    typical, usual = np.median(means, 0).mean(), np.median(known, 0).mean()
    if typical > 0 and usual > 0:
        bits = math.log2(typical / usual)
        if min(abs(abs(bits) - b) for b in _BITS) < _BITS_OFF:
            size = "large" if bits > 0 else "small"
            times = 2 ** min(_BITS, key=lambda b: abs(abs(bits) - b))
            return (
                f"their values are about {times} times as {size}, as with another bit "
                "depth"
            )
    brighter = "brighter" if typical > usual else "darker"
    return f"they are {brighter}, as with another exposure, light or black level"


def _off(seen: Statistics, good: Statistics, sigma: float) -> float:
    """Return how far off most images are: 1 is the limit."""
    x, m, spread = seen[:, :2], np.median(good[:, :2], 0), good[:, :2].std(0)
    limit = _SPREADS * spread + (_SIGMAS[0] + _SIGMAS[1] / math.sqrt(len(x))) * sigma
    return _of_most((x - m) / np.maximum(limit, np.finfo(float).tiny))


def _off_in_logs(seen: Statistics, good: Statistics, sigma: float) -> float:
    """Return the same of ratios, for values from 0 upwards."""
    x, m, spread = seen[:, :2], np.median(good[:, :2], 0), good[:, :2].std(0)
    n = len(x)
    soft = sigma / math.sqrt(n) or np.finfo(float).tiny  # black images have no ratio
    if min(x.min(), m.min()) < 0:
        return 0.0
    limit = _LOG_SPREADS * spread / (m + soft) + _LOGS[0] + _LOGS[1] / math.sqrt(n)
    return _of_most(np.log((x + soft) / (m + soft)) / limit)


def _of_most(off: np.ndarray) -> float:
    """Return what most of some images are off, (n, 2, C), in some channel.

    Both of their means must be off: a large defect moves the mean, an outline that
    moves a little the middle one, and another light moves both.
    """
    up = np.quantile(off.min(1), 1 - _MOST, axis=0, method="lower")
    down = np.quantile(off.max(1), _MOST, axis=0, method="higher")
    return float(max(up.max(), -down.min()))


def _reversed(means: np.ndarray, known: np.ndarray, sigma: float) -> bool:
    """Tell whether most images, (n, C), look as if their channels were reversed."""
    if means.shape[1] < 3:
        return False
    colours, usual = _colours(means), np.median(_colours(known), 0)  # C
    gap = np.abs(usual - usual[::-1])
    between = (known - known[:, ::-1]).std(0)
    limit = _SPREADS * between + _ORDER_SIGMAS / math.sqrt(len(means)) * sigma
    own = np.abs(colours - usual).max(1)  # n
    other = np.abs(colours - usual[::-1]).max(1)
    closer = np.mean(_ORDER_CLOSER * other < own)
    return bool((gap > limit).any() and closer >= _MOST)


def _colours(means: np.ndarray) -> np.ndarray:
    return means - means.mean(1, keepdims=True)
