"""Which good images train a network, and which set its threshold.

An image that a network was trained on looks too good to it. Where training goes on from
an earlier fit, such images are known by digests of their pixels.
"""

from contextlib import closing
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad._prefetch import one_by_one
from skad._preparation import to_unit_range

Digests = NDArray[np.uint64]  # sorted, (n,)

NONE: Digests = np.empty(0, np.uint64)


class Shown:
    """Notes what training is shown: all of its n images once, before any again."""

    def __init__(self, n: int) -> None:
        self._seen: set[int] = set()
        self._n_waiting = n

    def note(self, batch: np.ndarray) -> None:
        """Note the images (k, H, W, C) that were not shown before."""
        new = batch[: self._n_waiting]
        self._seen.update(map(digest, new))
        self._n_waiting -= len(new)

    def digests(self) -> Digests:
        """Return the digests of all that was shown."""
        return np.unique(np.fromiter(self._seen, np.uint64))

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted so far."""
        return {"seen": sorted(self._seen), "n_waiting": self._n_waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._seen, self._n_waiting = set(state["seen"]), state["n_waiting"]


def digest(image: np.ndarray) -> int:
    """Return a number that tells an image, (H, W, C), from others.

    To float32's precision, so that it stays when the image comes in another type.
    """
    mantissa, exponent = np.frexp(to_unit_range(image))
    pixels = blake2b(mantissa.astype(np.float32).tobytes(), digest_size=8)
    pixels.update(exponent.astype(np.int32).tobytes())
    return int.from_bytes(pixels.digest(), "little")


def are_new(images: Any, places: np.ndarray, trained_on: Digests) -> NDArray[np.bool_]:
    """Tell which images at these places (n,) a network was not trained on: (n,)."""
    if not len(trained_on):
        return np.ones(len(places), bool)
    with closing(one_by_one(images, places)) as each:
        digests = [digest(image[0]) for image in each]
    return ~np.isin(np.array(digests, np.uint64), trained_on)


def divide(
    shuffled: np.ndarray, may_calibrate: np.ndarray, validation_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the places of good images into training and calibration.

    Parameters
    ----------
    shuffled : ndarray of int of shape (n,)
        Places in a random order.
    may_calibrate : ndarray of bool of shape (n,)
        Those that are new to the network.
    validation_fraction : float
        The share of all that calibrates, if so many may.

    Returns
    -------
    training, calibration : ndarray of int
        In ascending order; no place is in both, each in one.

    Raises
    ------
    ValueError
        For fewer than 2 images, and where none is new.
    """
    n, new = len(shuffled), shuffled[may_calibrate]
    if n < 2:
        raise ValueError(
            "fit needs at least 2 good images, one to train and one to calibrate "
            f"the threshold; got n_samples = {n}. Add images."
        )
    check_any_is_new(new)
    wanted = min(max(1, round(validation_fraction * n)), n - 1)
    calibration = np.sort(new[:wanted])
    return np.setdiff1d(shuffled, calibration), calibration


def check_any_is_new(new: np.ndarray) -> None:
    """Raise a ValueError where there is no image to calibrate with."""
    if not len(new):
        raise ValueError(
            "fit with warm_start=True needs at least 1 good image that an earlier fit "
            "has not trained on, to calibrate the threshold; it has trained on all of "
            "X. Add images, or set warm_start=False."
        )
