"""Which images show the same part again, as the frames of a burst do.

A few hundred local means of its gray values describe an image. Two images are as far
apart as these differ (root mean square, in gray levels) once brightness, contrast and a
shift by one pixel are taken off. Near copies stand out by a gap: they are much closer
to each other than images usually are to the nearest other one.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from skad.common.warnings import warn

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


def describe(
    image: NDArray, roi: NDArray[np.bool_] | None = None
) -> NDArray[np.float32] | None:
    """Return local means of an image (H, W, C) at its nine shifts by up to a pixel.

    (9, k), in gray levels; the fifth is not shifted. Only means from inside the roi
    (H, W) count; None if there are too few of them.
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

    By single linkage, cut as high as the gap allows. Warns if many images have near
    copies, and if a group is too large to be believed: then all images stay apart.
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
            f"{sizes.max()} of {n} good images look nearly the same, as frames of one "
            "part do, and parts in one pose may: each counts as a part of its own. If "
            "there are fewer parts than images, pass groups, which names the part of "
            "each image; else more good images may be flagged than target_fpr promises."
        )
        return alone
    if n - len(sizes) > _WORTH_A_WARNING * n:
        warn(
            f"{n} good images seem to show {len(sizes)} parts, some in several near "
            "copies, as frames of one part are. Near copies go to training together, "
            "or one of them is used to set the threshold. If that is wrong, pass "
            "groups, which names the part of each image."
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
