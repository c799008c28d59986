"""Which good images train a network, and which set its threshold.

A network scores images that it was trained on better than new ones, and so copies of
these, or other images of the same part. Digests of their pixels identify images; groups
are the parts that images show. Where they are not given, near copies are groups, as the
frames of a burst: a few hundred local means of its gray values describe an image, and
two are as far apart as these differ (root mean square, in gray levels) once brightness,
contrast and a shift by one pixel are taken off. Near copies stand out by a gap: they
are much closer to each other than images usually are to the nearest other one.
"""

import math
from collections.abc import Hashable
from contextlib import closing
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from skad.common.checks import refuse_mask
from skad.common.labels import MISSING
from skad.common.warnings import warn
from skad.images.inputs import batches_of
from skad.network.preparation import to_unit_range

Digests = NDArray[np.uint64]  # (n,)
Places = NDArray[np.intp]  # (n,)

NONE: Digests = np.empty(0, np.uint64)

_MIN_VALUES = 64  # of an image: fewer may be equal by chance

# Of near copies.
_MAX_CELLS = 256  # of an image, each with a mean
_MIN_CELLS = 16  # fewer are equal by chance
_MIN_CELL_SIZE = 4  # pixels; a JPEG changes smaller ones by several gray levels
_MAX_DISTANCE = 3.0  # gray levels of 255; the changes of docs/benchmarks.md come to 1.1
_MIN_CONTRAST = 10.0  # gray levels; of less, noise alone would be near other noise
_GAP = 1 / 3  # largest share of the usual distance to the nearest other group
_MIN_IMAGES = 10  # fewer have no usual distance
_MAX_IMAGES = 10_000  # their distances take 400 MB
_MAX_GROUP = 0.3  # of all images: a larger group may be different parts in one pose
_WORTH_A_WARNING = 0.1  # of all images are further members of groups


class Split(NamedTuple):
    """Places of images, in ascending order; no group has some in both."""

    training: Places
    calibration: Places  # one of each group
    trained_on: Digests  # of those that train
    parts: Places  # numbers of the groups of those that train


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

    `good` are their places among the `images`. A `share` of the groups calibrates (1:
    none trains; 0: all do both), but for those of `known` images, which have trained
    before. `groups` are numbers of all images; None = near copies are groups. Copies
    are left out.
    """
    if len(good) < (1 if share == 1 else 2):
        raise ValueError(
            "fit needs at least 2 good images, not labelled -1, one to train and one "
            f"for the threshold (1 if it trains nothing); got n_samples = {len(good)}. "
            "Add images."
        )
    good, digests, parts = _without_copies(images, good, groups, roi)
    n = int(parts.max()) + 1
    if share < 1 and n < 2 and groups is not None:
        raise ValueError(
            "fit needs good images of at least 2 groups, one to train and one to "
            "calibrate; got 1. Add images of other parts, or drop groups."
        )
    if share == 0:
        return Split(good, good[one_of_each(parts, rng)], digests, parts)
    order = rng.permutation(n)
    new = order[~np.isin(order, parts[np.isin(digests, known)])]
    if not len(new):
        raise ValueError(
            "warm_start=True needs a good image of a new group for the threshold; the "
            "network was trained on all of X. Add images, or train a new network."
        )
    n_wanted = n if share == 1 else min(max(1, round(share * n)), n - 1)
    calibrates = np.isin(parts, new[:n_wanted])
    trains = ~calibrates & (share < 1)
    held_out = good[calibrates][one_of_each(parts[calibrates], rng)]
    return Split(good[trains], held_out, digests[trains], parts[trains])


def calibration_places(
    images: Any,
    known: Digests,
    rng: np.random.RandomState,
    groups: Places | None = None,
    roi: NDArray[np.bool_] | None = None,
) -> Places:
    """Return the places of one image of each group; warn of `known` images."""
    places = np.arange(len(images))
    kept, digests, parts = _without_copies(images, places, groups, roi)
    n_known = np.count_nonzero(np.isin(digests, known))
    if n_known:
        warn(
            f"The network was trained on {n_known} of these {len(places)} images, so "
            "more good images may be flagged than target_fpr promises. Use new ones."
        )
    return kept[one_of_each(parts, rng)]


def check_groups(groups: Any, n: int) -> Places | None:
    """Return the groups of n images as numbers, by their first images; None stays."""
    if groups is None:
        return None
    refuse_mask(groups, "groups")
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    rule = f"groups must be a list or an array of one label an image, {n} in all"
    if len(labels) != n:
        raise ValueError(f"{rule}; got {len(labels)}.")
    for i, label in enumerate(labels):
        if not isinstance(label, Hashable) or str(label) in MISSING:
            raise ValueError(
                f"{rule}; that of image {i} is {label!r}. Give images of unknown parts "
                "labels of their own."
            )
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
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
    """Return a number that identifies an image (H, W, C), in whatever type it comes."""
    mantissa, exponent = np.frexp(to_unit_range(image))  # to float32's precision
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
        warn(f"All {n} good images are equal: nothing is promised. Add other parts.")
        return np.arange(n)
    if n_copies:
        copy = np.flatnonzero(first[which] != np.arange(n))[0]
        original = first[which[copy]]
        warn(
            f"{n_copies} of {n} good images are copies of others, to the pixel, and "
            f"left out (image {places[copy]} is one of image {places[original]})."
        )
    return np.sort(first)


def describe(
    image: NDArray, roi: NDArray[np.bool_] | None = None
) -> NDArray[np.float32] | None:
    """Return local means (9, k) of an image (H, W, C), shifted by up to a pixel.

    In gray levels; the fifth is not shifted. None if too few are inside the roi (H, W).
    """
    height, width = (side - 2 for side in image.shape[:2])  # no shift leaves the image
    if min(height, width) < _MIN_CELL_SIZE:
        return None
    size = max(math.sqrt(height * width / _MAX_CELLS), _MIN_CELL_SIZE)
    rows = _windows(height, max(int(height / size), 1))
    columns = _windows(width, max(int(width / size), 1))
    inside = np.ones((height, width)) if roi is None else roi[1:-1, 1:-1]
    counts = rows @ inside @ columns.T > 1 - 1e-9
    if np.count_nonzero(counts) < _MIN_CELLS:
        return None
    largest = float(np.abs(image).max()) or 1.0
    gray = image.mean(2, dtype=np.float64) / largest * 255
    strips = [rows @ gray[i : i + height] for i in range(3)]
    means = [strip[:, i : i + width] @ columns.T for strip in strips for i in range(3)]
    return np.array([some[counts] for some in means], np.float32)


def group_near_copies(descriptions: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the numbers of groups of near copies, (n,), by their first images.

    By single linkage, cut as high as the gap allows. If a group is too large to be
    believed, all images stay apart, with a warning.
    """
    n = len(descriptions)
    alone = np.arange(n)
    if not _MIN_IMAGES <= n <= _MAX_IMAGES:
        return alone
    tree = linkage(_distances(descriptions), "single")
    made_at = np.concatenate([np.zeros(n), tree[:, 2]])  # height of each node …
    joined_at = np.zeros(2 * n - 1)  # … and of the node that joins it to others
    joined_at[tree[:, :2].astype(int)] = tree[:, 2:3]
    for height in np.unique(tree[tree[:, 2] <= _MAX_DISTANCE, 2])[::-1]:
        to_nearest = joined_at[(made_at <= height) & (joined_at > height)]
        if len(to_nearest) and height <= _GAP * np.median(to_nearest):
            break
    else:
        return alone
    _, first, groups, sizes = np.unique(
        fcluster(tree, height, "distance"), True, True, True
    )
    if sizes.max() > max(_MAX_GROUP * n, 1):
        warn(
            f"{sizes.max()} of {n} good images look nearly the same; each counts as a "
            "part of its own. If there are fewer parts than images, pass groups, the "
            "part of each image; else more may be flagged than target_fpr promises."
        )
        return alone
    if n - len(sizes) > _WORTH_A_WARNING * n:
        warn(
            f"{n} good images seem to show {len(sizes)} parts, some in several near "
            "copies: all of them train, or one helps to set the threshold. If that is "
            "wrong, pass groups, the part of each image."
        )
    return np.argsort(np.argsort(first))[groups]


def _windows(n_pixels: int, n: int) -> NDArray[np.float64]:
    """Return weights that average n equal stretches of pixels: (n, n_pixels)."""
    ends = np.linspace(0, n_pixels, n + 1)[:, np.newaxis] - np.arange(n_pixels)
    return np.diff(np.clip(ends, 0, 1), axis=0) * n / n_pixels


def _distances(descriptions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distances of all pairs, (n (n - 1) / 2,), in gray levels."""
    means = descriptions - descriptions.mean(2, keepdims=True)  # n, 9, k
    norms = np.linalg.norm(means, axis=2)
    means /= np.maximum(norms, np.finfo(np.float32).tiny)[..., np.newaxis]
    centres = np.ascontiguousarray(means[:, 4])  # not shifted
    contrasts = np.maximum(norms[:, 4] / math.sqrt(means.shape[2]), _MIN_CONTRAST)
    distances = []
    for i in range(len(means) - 1):
        cosines = (means[i] @ centres[i + 1 :].T).max(0)
        contrast = np.maximum(contrasts[i], contrasts[i + 1 :])
        distances.append(np.sqrt(np.maximum(2 - 2 * cosines, 0)) * contrast)
    return np.concatenate(distances)
