"""Which good images train a network, and which set its threshold.

An image that a network was trained on looks too good to it, and so does a copy, or
another image of the same part. Images are known again by digests of their pixels.
"""

import math
from contextlib import closing
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.detectors.groups import one_of_each
from skad.detectors.near_copies import Describer, group_near_copies
from skad.images.inputs import batches_of
from skad.network.preparation import to_unit_range

Digests = NDArray[np.uint64]  # (n,)
Places = NDArray[np.intp]  # (n,)

NONE: Digests = np.empty(0, np.uint64)

_FEWEST_VALUES = 64  # of an image: fewer may be equal by chance


class Division(NamedTuple):
    """Places of images, in ascending order; no group has some in both."""

    training: Places
    calibration: Places  # one of each group
    trained_on: Digests  # of those that train


def divide(
    images: Any,
    good: Places,
    known: Digests,
    share: float,
    rng: np.random.RandomState,
    *,
    groups: Places | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Division:
    """Divide good images into those that train and those that calibrate.

    Parameters
    ----------
    images : Images
    good : ndarray of int of shape (n,)
        Places of the good ones, in ascending order.
    known : ndarray of uint64
        Digests of what the network was trained on before: groups with one of these
        may not calibrate.
    share : float
        The share of all groups that calibrates, if so many may; 1 means that none
        trains.
    rng : RandomState
    groups : ndarray of int of shape (len(images),), default=None
        Which images belong together; None = near copies do.
    roi : ndarray of bool of shape (H, W), default=None
        Where near copies look alike.

    Returns
    -------
    Division

    Raises
    ------
    ValueError
        For fewer than 2 images or groups, if any are to train, and where none may
        calibrate.

    Warns
    -----
    UserWarning
        Where images are copies of others, which are left out, and as
        `group_near_copies`.
    """
    _check_number(len(good), share)
    seen = _look_at(images, good, groups, roi)
    good, digests = good[seen.kept], seen.digests[seen.kept]
    n = int(seen.groups.max()) + 1
    if share < 1 and n < 2 and groups is not None:
        raise ValueError(
            "fit needs at least 2 groups of good images, one to train and one to "
            "calibrate the threshold; all are of one group. Add images of other "
            "parts, or leave groups at None."
        )
    order = rng.permutation(n)
    is_known = np.zeros(n, bool)
    is_known[seen.groups[np.isin(digests, known)]] = True
    new = order[~is_known[order]]
    if not len(new):
        raise ValueError(
            "To go on with a trained network (warm_start=True) needs at least 1 good "
            "image that it was not trained on, to calibrate the threshold; it was "
            "trained on all of X. Add images, or train a new network. Images of a "
            "group that it was trained on do not count."
        )
    wanted = n if share == 1 else min(max(1, round(share * n)), n - 1)
    calibrates = np.isin(seen.groups, new[:wanted])
    trains = ~calibrates & (share < 1)
    held_out = good[calibrates][one_of_each(seen.groups[calibrates], rng)]
    return Division(good[trains], held_out, digests[trains])


def distinct(
    images: Any,
    rng: np.random.RandomState,
    groups: Places | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Places:
    """Return the places of images that copy none before, one of each group.

    Groups, roi and warnings are as in `divide`.
    """
    places = np.arange(len(images))
    seen = _look_at(images, places, groups, roi, to_know_again=False)
    return seen.kept[one_of_each(seen.groups, rng)]


class _Seen(NamedTuple):
    digests: Digests  # of all images; none where they are not to be known again
    kept: Places  # without copies
    groups: Places  # of those that are kept, numbered from 0


def _look_at(
    images: Any,
    places: Places,
    groups: Places | None,
    roi: NDArray[np.bool_] | None,
    *,
    to_know_again: bool = True,
) -> _Seen:
    """Look at images once, and find the copies and near copies among them."""
    n = len(places)
    describe = Describer(images.format.image_shape[:2], roi)
    guess = groups is None and describe.is_able and n > 1
    bases = np.empty((n if guess else 0, 3, describe.n_means), np.float32)
    units = np.empty(len(bases))
    digests, exact = np.empty(n if to_know_again else 0, np.uint64), []
    with closing(batches_of(images, places[:, np.newaxis])) as each:
        for i, image in enumerate(each):
            if to_know_again:
                digests[i] = digest(image[0])
            exact.append(blake2b(image.tobytes(), digest_size=16).digest())
            if guess:
                bases[i], units[i] = describe(image[0])
    kept = _without_copies(places, exact, math.prod(images.format.image_shape))
    if guess:
        found = group_near_copies(bases[kept], units[kept])
    elif groups is None:
        found = np.arange(len(kept))
    else:
        found = np.unique(groups[places[kept]], return_inverse=True)[1]
    return _Seen(digests, kept, found)


def digest(image: np.ndarray) -> int:
    """Return a number that tells an image, (H, W, C), from others.

    To float32's precision, so that it stays when the image comes in another type.
    """
    mantissa, exponent = np.frexp(to_unit_range(image))
    mantissa, carry = np.frexp(mantissa.astype(np.float32))  # rounded, it may reach 1
    pixels = blake2b(mantissa.tobytes(), digest_size=8)
    pixels.update((exponent + carry).astype(np.int32).tobytes())
    return int.from_bytes(pixels.digest(), "little")


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


def _without_copies(places: Places, exact: list[bytes], n_values: int) -> Places:
    """Return which to keep: the first of equal images, and no fewer than 2."""
    first: dict[bytes, int] = {}
    copies = [i for i, seen in enumerate(exact) if first.setdefault(seen, i) != i]
    keep = np.ones(len(exact), bool)
    if not copies or n_values < _FEWEST_VALUES:
        return np.flatnonzero(keep)
    if len(first) == 1:
        warn(
            f"All {len(places)} good images are equal, to the pixel: the threshold "
            "promises nothing. Add images of other parts.",
        )
        return np.flatnonzero(keep)
    copy, original = places[copies[0]], places[first[exact[copies[0]]]]
    warn(
        f"{len(copies)} of {len(places)} good images are copies of others, to the "
        f"pixel, and left out (image {copy} is one of image {original}): "
        "they say nothing new, and make good images look alike.",
    )
    keep[copies] = False
    return np.flatnonzero(keep)
