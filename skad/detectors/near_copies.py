"""Which images show the same part again, as the frames of a burst do.

A few hundred local means describe an image. Two images are as far apart as their means
differ once contrast, brightness and small shifts are taken off [1]_. The unit is what a
shift by one pixel and an error of half a gray level do to that description.

References
----------
.. [1] P. Simard, Y. LeCun and J. Denker, "Efficient pattern recognition using a new
   transformation distance", NIPS 5, 1992 (the one-sided tangent distance).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skad.common.warnings import warn

_MOST_NUMBERS = 1024  # of a description: the means, and how they move with two shifts
_LEAST_SIDE = 8  # pixels; what is smaller is hardly an image
_FEWEST_MEANS = 16  # inside the roi
_ERROR = 1 / 510  # of the largest value: half a gray level of 255
_ROUNDING = 1000  # times, that means of one gray are off
_LARGEST_UNIT = 0.3  # else noise alone would be near other noise
_FEWEST_IMAGES = 10  # else nothing is usual
_FARTHEST = 2.0  # units that near copies are apart, at most
_CLOSER = 1 / 3  # … and this share of the usual way from group to group
_LARGEST_GROUP = 0.3  # of all images
_WORTH_TELLING = 0.9  # of the images are groups, or more
_AT_ONCE = 128  # images that are compared with all

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]


class Describer:
    """Describes images of one size.

    Parameters
    ----------
    size : (height, width)
    roi : ndarray of bool of shape (H, W) or None
        Pixels outside do not count.

    Attributes
    ----------
    is_able : bool
        False where images are too small, or the roi is.
    n_means : int
        Of a description; at most 341.
    """

    def __init__(self, size: tuple[int, int], roi: NDArray | None = None) -> None:
        self.n_means, self.is_able = 0, min(size) >= _LEAST_SIDE
        if not self.is_able:
            return
        most = _MOST_NUMBERS // 3
        scale = math.sqrt(most / math.prod(size))
        n_rows, n_columns = (
            min(max(int(side * scale), 1), side, most) for side in size
        )
        self._rows = _windows(size[0], n_rows)
        self._columns = _windows(size[1], n_columns)
        self._counts = np.ones(n_rows * n_columns, bool)
        if roi is not None:
            inside = self._rows[1] @ roi.astype(np.float64) @ self._columns[1].T
            self._counts = inside.ravel() > 1 - 1e-9
        self.n_means = int(np.count_nonzero(self._counts))
        self.is_able = self.n_means >= _FEWEST_MEANS

    def __call__(self, image: NDArray) -> tuple[NDArray[np.float32], float]:
        """Describe an image (H, W, C).

        Returns
        -------
        basis : ndarray of shape (3, n_means), float32
            Its means, and how they change with shifts down and right: orthonormal.
        unit : float
            Of distances from this image, which are sines of angles.
        """
        means = self._means(image)  # 3, 3, k
        means -= means.mean(2, keepdims=True)
        centre, k = means[1, 1], means.shape[2]
        largest = max(float(image.max()), -float(image.min()))
        contrast = float(np.linalg.norm(centre))
        if contrast <= _ROUNDING * np.finfo(self._exact(image)).eps * largest:
            return np.zeros((3, k), np.float32), _LARGEST_UNIT
        means /= contrast
        down, right = means[2, 1] - means[0, 1], means[1, 2] - means[1, 0]
        basis, triangle = np.linalg.qr(np.stack([centre, down, right], axis=1))
        basis = (basis * np.sign(np.diag(triangle))).T  # 3, k
        shift = max(_sine(basis, means[2, 0]), _sine(basis, means[2, 2]))
        error = _ERROR * largest * np.sqrt(k) / contrast
        unit = min(float(np.hypot(shift, error)), _LARGEST_UNIT)
        return basis.astype(np.float32), unit

    @staticmethod
    def _exact(image: NDArray) -> type:
        return np.float32 if image.dtype.itemsize <= 2 else np.float64

    def _means(self, image: NDArray) -> Floats:
        """Return local means of an image, shifted by -1, 0 and 1: (3, 3, k)."""
        exact = self._exact(image)
        gray = image.mean(2, dtype=exact)  # H, W
        n_rows, n_columns = len(self._rows[0]), len(self._columns[0])
        rows: NDArray = self._rows.reshape(-1, gray.shape[0]).astype(exact)
        columns: NDArray = self._columns.reshape(-1, gray.shape[1]).astype(exact)
        means = (rows @ gray @ columns.T).astype(np.float64)
        means = means.reshape(3, n_rows, 3, n_columns).swapaxes(1, 2)
        return means.reshape(3, 3, -1)[..., self._counts]


def group_near_copies(bases: NDArray[np.float32], units: Floats) -> Whole:
    """Return the numbers of groups of near copies, (n,), by their first images.

    Near copies stand out by a gap: t is the largest distance, up to a limit, that is at
    most a third of the usual way from one group to the nearest other one, where images
    up to t apart are one group.

    Parameters
    ----------
    bases : ndarray of shape (n, 3, k), float32
    units : ndarray of shape (n,)
        As a `Describer` gives them.

    Warns
    -----
    UserWarning
        Where so many images would be one group that they are left apart, and where many
        have near copies.
    """
    n = len(bases)
    if n < _FEWEST_IMAGES:
        return np.arange(n)
    edges = _short_edges(bases, units)
    for t in np.geomspace(_FARTHEST, 1e-3 * _FARTHEST, 60):
        groups = _joined(n, edges, t)
        if t <= _CLOSER * _usual_way_out(groups, edges, t):
            break
    else:
        return np.arange(n)
    n_groups, largest = groups.max() + 1, np.bincount(groups).max()
    if largest > max(_LARGEST_GROUP * n, 1):
        warn(
            f"{largest} of {n} good images look nearly the same, as frames of one part "
            "do, and parts in one pose may: each counts as a part of its own. If there "
            "are fewer parts than images, pass groups, which names the part of each "
            "image; else more good images may be flagged than target_fpr promises."
        )
        return np.arange(n)
    if n_groups < _WORTH_TELLING * n:
        warn(
            f"{n} good images seem to show {n_groups} parts, some in several near "
            "copies, as frames of one part are. Near copies go to training together, "
            "or one of them is used to set the threshold. If that is wrong, pass "
            "groups, which names the part of each image."
        )
    return groups


def _windows(length: int, n: int) -> Floats:
    """Return the weights of n smooth windows, shifted by -1, 0 and 1: (3, n, length).

    Shifted ones do not leave the image, so that they see what a shifted image shows.
    """
    half = min(max(length / n, 2), (length - 1) / 2)
    margin = min(half + 1, (length - 1) / 2)
    first, last = margin - 0.5, length - 0.5 - margin
    centres = np.linspace(first, last, n) if n > 1 else np.array([(first + last) / 2])
    shifted = centres + np.arange(-1, 2)[:, None]  # 3, n
    away = np.abs(np.arange(length) - shifted[..., None]) / max(half, 1)
    weights = np.where(away < 1, 1 + np.cos(np.pi * away), 0)  # von Hann's
    return weights / np.maximum(weights.sum(2, keepdims=True), 1e-12)


def _sine(basis: Floats, means: Floats) -> float:
    """Return how far means lie outside what the rows of a basis span, in [0, 1]."""
    means = means / np.linalg.norm(means)
    return float(np.sqrt(max(1 - np.sum((basis @ means) ** 2), 0)))


class _Edges(NamedTuple):
    ends: Whole  # (2, m), of images
    distances: Floats  # (m,)


def _short_edges(bases: NDArray[np.float32], units: Floats) -> _Edges:
    """Return the minimum spanning tree, up to the limit, and the ways out of its parts.

    By Borůvka's algorithm: as long as that joins some, every part is joined to the
    nearest other one.
    """
    n = len(bases)
    edges = _Edges(np.empty((2, 0), np.intp), np.empty(0))
    parts = np.arange(n)
    while True:
        distances, nearest = _nearest_outside(bases, units, parts)
        order = np.argsort(distances, kind="stable")
        starts = order[np.unique(parts[order], return_index=True)[1]]
        ways = distances[starts]
        ends = np.hstack([edges.ends, [starts, nearest[starts]]])
        edges = _Edges(ends, np.concatenate([edges.distances, ways]))
        if ways.min() > _FARTHEST:
            return edges
        parts = _joined(n, edges, _FARTHEST)


def _nearest_outside(
    bases: NDArray[np.float32], units: Floats, parts: Whole
) -> tuple[Floats, Whole]:
    """Return the distance to the nearest image of another part, and its place."""
    means = bases[:, 0].astype(np.float64)
    distances, nearest = np.empty(len(bases)), np.empty(len(bases), np.intp)
    for start in range(0, len(bases), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        rows = bases[some].astype(np.float64)  # r, 3, k
        along = rows.reshape(-1, rows.shape[2]) @ means.T
        along = along.reshape(len(rows), 3, -1)
        np.maximum(along[:, 0], 0, out=along[:, 0])  # a negative is no copy
        away = np.sqrt(np.maximum(1 - (along**2).sum(1), 0))  # r, n
        away /= np.maximum(units[some, None], units)
        away[parts[some, None] == parts] = np.inf
        nearest[some] = away.argmin(1)
        distances[some] = away.min(1)
    return distances, nearest


def _joined(n: int, edges: _Edges, farthest: float) -> Whole:
    """Return numbers of the parts that edges up to this long join, (n,)."""
    starts, ends = edges.ends[:, edges.distances <= farthest]
    graph = coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.intp)


def _usual_way_out(groups: Whole, edges: _Edges, t: float) -> float:
    """Return the median distance from a group to the nearest; 0 if there is but one."""
    ways = np.full(groups.max() + 1, np.inf)
    outside = edges.distances > t
    for ends in edges.ends:
        np.minimum.at(ways, groups[ends[outside]], edges.distances[outside])
    return float(np.median(ways)) if len(ways) > 1 else 0.0
