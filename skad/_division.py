"""Which good images train a network, and which set its threshold.

An image that a network was trained on looks too good to it, and so does a copy. Images
are known again by digests of their pixels.
"""

import math
from contextlib import closing
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad._prefetch import one_by_one
from skad._preparation import to_unit_range
from skad._warnings import warn

Digests = NDArray[np.uint64]  # (n,)

NONE: Digests = np.empty(0, np.uint64)

_FEWEST_VALUES = 64  # of an image: fewer may be equal by chance


class Division(NamedTuple):
    """Places of images, in ascending order; none is in both, nor are copies."""

    training: NDArray[np.intp]
    calibration: NDArray[np.intp]
    trained_on: Digests  # of those that train


def divide(
    images: Any,
    good: NDArray[np.intp],
    known: Digests,
    share: float,
    rng: np.random.RandomState,
) -> Division:
    """Divide good images into those that train and those that calibrate.

    Parameters
    ----------
    images : Images
    good : ndarray of int of shape (n,)
        Places of the good ones, in ascending order.
    known : ndarray of uint64
        Digests of what the network was trained on before, which may not calibrate.
    share : float
        The share of all that calibrates, if so many may; 1 means that none trains.
    rng : RandomState

    Returns
    -------
    Division

    Raises
    ------
    ValueError
        For fewer than 2 images, if any are to train, and where none may calibrate.

    Warns
    -----
    UserWarning
        Where images are copies of others, which are left out.
    """
    _check_number(len(good), share)
    digests, exact = _digests(images, good)
    kept = _without_copies(good, exact, math.prod(images.format.image_shape))
    good, digests = good[kept], digests[kept]
    n = len(good)
    order = rng.permutation(n)
    new = order[~np.isin(digests[order], known)]
    if not len(new):
        raise ValueError(
            "To go on with a trained network (warm_start=True) needs at least 1 good "
            "image that it was not trained on, to calibrate the threshold; it was "
            "trained on all of X. Add images, or train a new network."
        )
    wanted = n if share == 1 else min(max(1, round(share * n)), n - 1)
    calibrates = np.zeros(n, bool)
    calibrates[new[:wanted]] = True
    trains = ~calibrates & (share < 1)
    return Division(good[trains], good[calibrates], digests[trains])


def distinct(images: Any) -> NDArray[np.intp]:
    """Return the places of images that copy none before; warn where others do."""
    places = np.arange(len(images))
    with closing(one_by_one(images, places)) as each:
        exact = [_exact(image) for image in each]
    return places[_without_copies(places, exact, math.prod(images.format.image_shape))]


def digest(image: np.ndarray) -> int:
    """Return a number that tells an image, (H, W, C), from others.

    To float32's precision, so that it stays when the image comes in another type.
    """
    mantissa, exponent = np.frexp(to_unit_range(image))
    mantissa, carry = np.frexp(mantissa.astype(np.float32))  # rounded, it may reach 1
    pixels = blake2b(mantissa.tobytes(), digest_size=8)
    pixels.update((exponent + carry).astype(np.int32).tobytes())
    return int.from_bytes(pixels.digest(), "little")


def _digests(images: Any, places: NDArray[np.intp]) -> tuple[Digests, list[bytes]]:
    """Return digests of images, and others that tell the smallest difference."""
    digests, exact = np.empty(len(places), np.uint64), []
    with closing(one_by_one(images, places)) as each:
        for i, image in enumerate(each):
            digests[i] = digest(image[0])
            exact.append(_exact(image))
    return digests, exact


def _exact(image: np.ndarray) -> bytes:
    return blake2b(image.tobytes(), digest_size=16).digest()


def _check_number(n: int, share: float) -> None:
    if share == 1 and not n:
        raise ValueError(
            "fit needs at least 1 good image, to calibrate the threshold; all of X are "
            "labelled -1. Add images."
        )
    if share < 1 and n < 2:
        raise ValueError(
            "fit needs at least 2 good images, one to train and one to calibrate "
            f"the threshold; got n_samples = {n}. Add images."
        )


def _without_copies(
    places: NDArray[np.intp], exact: list[bytes], n_values: int
) -> NDArray[np.bool_]:
    """Tell which to keep: the first of equal images, and no fewer than 2."""
    first: dict[bytes, int] = {}
    copies = [i for i, seen in enumerate(exact) if first.setdefault(seen, i) != i]
    keep = np.ones(len(exact), bool)
    if not copies or n_values < _FEWEST_VALUES:
        return keep
    if len(first) == 1:
        warn(
            f"All {len(places)} good images are equal, to the pixel: the threshold "
            "promises nothing. Add images of other parts.",
        )
        return keep
    copy, original = places[copies[0]], places[first[exact[copies[0]]]]
    warn(
        f"{len(copies)} of {len(places)} good images are copies of others, to the "
        f"pixel, and left out (image {copy} is one of image {original}): "
        "they say nothing new, and make good images look alike.",
    )
    keep[copies] = False
    return keep
