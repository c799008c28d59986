"""Which good images train a network, and which set its threshold.

A network takes an image that it was trained on for better than new ones, and so it
takes a copy, or another image of the same part. Digests of their pixels identify images
again; groups are the parts that images show.
"""

import math
from collections.abc import Hashable
from contextlib import closing
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import refuse_mask
from skad.common.labels import MISSING
from skad.common.warnings import warn
from skad.detectors.near_copies import describe, group_near_copies
from skad.images.inputs import batches_of
from skad.network.preparation import to_unit_range

Digests = NDArray[np.uint64]  # (n,)
Places = NDArray[np.intp]  # (n,)

NONE: Digests = np.empty(0, np.uint64)

_MIN_VALUES = 64  # of an image: fewer may be equal by chance


class Split(NamedTuple):
    """Places of images, in ascending order; no group has some in both."""

    training: Places
    calibration: Places  # one of each group
    trained_on: Digests  # of those that train


def train_calibration_split(
    images: Any,
    good: Places,
    known: Digests,
    share: float,
    rng: np.random.RandomState,
    *,
    groups: Places | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Split:
    """Split good images by groups into those that train and those that calibrate.

    `good` are their places among the `images`, `known` the digests of what the network
    was trained on before: their groups may not calibrate. `share` of the groups
    calibrate, if so many may; 1 means that none trains. `groups` are numbers of all
    images; None = near copies (inside the roi) are groups. Warns of copies, which are
    left out.
    """
    if len(good) < (1 if share == 1 else 2):
        raise ValueError(
            "fit needs at least 2 good images, one to train and one to calibrate the "
            "threshold, or 1 if it trains nothing, not counting those labelled -1; got "
            f"n_samples = {len(good)}. Add images."
        )
    good, digests, parts = _without_copies(images, good, groups, roi)
    n = int(parts.max()) + 1
    if share < 1 and n < 2 and groups is not None:
        raise ValueError(
            "fit needs at least 2 groups of good images, one to train and one to "
            "calibrate; all are of one. Add images of other parts, or drop groups."
        )
    order = rng.permutation(n)
    new = order[~np.isin(order, parts[np.isin(digests, known)])]
    if not len(new):
        raise ValueError(
            "warm_start=True needs at least 1 good image that the network was not "
            "trained on, to calibrate the threshold; it was trained on all of X. Add "
            "images, or train a new network. Images of a group that it was trained on "
            "do not count."
        )
    n_wanted = n if share == 1 else min(max(1, round(share * n)), n - 1)
    calibrates = np.isin(parts, new[:n_wanted])
    trains = ~calibrates & (share < 1)
    held_out = good[calibrates][one_of_each(parts[calibrates], rng)]
    return Split(good[trains], held_out, digests[trains])


def calibration_places(
    images: Any,
    known: Digests,
    rng: np.random.RandomState,
    groups: Places | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Places:
    """Return the places of one image of each group, without copies.

    Arguments and warnings are as in `train_calibration_split`. Warns of images that the
    network was trained on, too.
    """
    places = np.arange(len(images))
    kept, digests, parts = _without_copies(images, places, groups, roi)
    n_known = np.count_nonzero(np.isin(digests, known))
    if n_known:
        warn(
            f"The network was trained on {n_known} of these {len(places)} images: more "
            "new good images may be flagged than target_fpr promises. Calibrate with "
            "images that fit has not trained on."
        )
    return kept[one_of_each(parts, rng)]


def check_groups(groups: Any, n: int) -> Places | None:
    """Return the groups of n images as numbers, by their first images; None stays."""
    if groups is None:
        return None
    refuse_mask(groups, "groups")
    labels = np.asarray(groups).tolist() if hasattr(groups, "__array__") else groups
    rule = f"groups must be a list or an array of one label an image, {n} in all"
    if not isinstance(labels, list | tuple | range):
        raise ValueError(f"{rule}; got {type(groups).__name__}.")
    if len(labels) != n:
        raise ValueError(f"{rule}; got {len(labels)}.")
    numbers: dict[Any, int] = {}
    for i, label in enumerate(labels):
        if not isinstance(label, Hashable) or str(label) in MISSING:
            raise ValueError(
                f"{rule}, such as the name of its part; that of image {i} is {label!r}."
                " Give images of unknown parts labels of their own."
            )
        numbers.setdefault(label, len(numbers))
    return np.array([numbers[label] for label in labels], np.intp)


def one_of_each(groups: Places, rng: np.random.RandomState) -> Places:
    """Return the places of one image of each group, drawn at random, in order."""
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    several = np.flatnonzero(sizes > 1)
    if len(several):  # else nothing is drawn, and rng stays
        members = np.argsort(groups, kind="stable")
        starts = np.cumsum(sizes) - sizes
        first[several] = members[starts[several] + rng.randint(sizes[several])]
    return np.sort(first)


def one_of_each_label(
    labels: NDArray, groups: Places | None, rng: np.random.RandomState
) -> Places:
    """Return the places of one image of each label and group; of all without groups."""
    if groups is None:
        return np.arange(len(labels))
    return one_of_each(2 * groups + (labels == 1), rng)


def digest(image: np.ndarray) -> int:
    """Return a number that identifies an image, (H, W, C), by its pixels.

    To float32's precision, so that it stays when the image comes in another type.
    """
    mantissa, exponent = np.frexp(to_unit_range(image))
    mantissa, carry = np.frexp(mantissa.astype(np.float32))  # rounded, it may reach 1
    pixels = blake2b(mantissa.tobytes(), digest_size=8)
    pixels.update((exponent + carry).astype(np.int32).tobytes())
    return int.from_bytes(pixels.digest(), "little")


def _without_copies(
    images: Any,
    places: Places,
    groups: Places | None,
    roi: NDArray[np.bool_] | None,
) -> tuple[Places, Digests, Places]:
    """Return places without copies, digests and numbers of groups from 0: (k,) each."""
    digests = np.empty(len(places), np.uint64)
    descriptions: list[Any] = []
    with closing(batches_of(images, places[:, np.newaxis])) as each:
        for i, (image,) in enumerate(each):
            digests[i] = digest(image)
            if groups is None:
                descriptions.append(describe(image, roi))
    kept = np.arange(len(places))
    if math.prod(images.format.image_shape) >= _MIN_VALUES:
        kept = _first_of_each(digests, places)
    places, digests = places[kept], digests[kept]
    if groups is not None:
        return places, digests, np.unique(groups[places], return_inverse=True)[1]
    if descriptions[0] is None:  # too small, as all are
        return places, digests, np.arange(len(places))
    return places, digests, group_near_copies(np.stack(descriptions)[kept])


def _first_of_each(digests: Digests, places: Places) -> Places:
    """Return the first of equal images, and all if there is but one; warn of others."""
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    n, n_copies = len(digests), len(digests) - len(first)
    if n_copies and len(first) == 1:
        warn(
            f"All {n} good images are equal, to the pixel: the threshold promises "
            "nothing. Add images of other parts."
        )
        return np.arange(n)
    if n_copies:
        copy = np.flatnonzero(first[which] != np.arange(n))[0]
        original = first[which[copy]]
        warn(
            f"{n_copies} of {n} good images are copies of others, to the pixel, and "
            f"left out (image {places[copy]} is one of image {places[original]})."
        )
    return np.sort(first)
