"""Connected components of a mask, found by runs: pixels that are True in a row."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]


class Runs(NamedTuple):
    """The runs of a mask, in the order of its pixels, and where each belongs."""

    row: Ints
    start: Ints  # column
    stop: Ints  # column after the last
    component: Ints  # from 0 on, in the order of first pixels


def connected_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find the runs of a mask (H, W) and its 8-connected components."""
    height, width = mask.shape
    stride = width + 1  # a column of False, which ends every run
    flat = np.zeros(1 + height * stride, bool)
    flat[1:].reshape(height, stride)[:, :-1] = mask
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    start, stop = edges[::2], edges[1::2]
    # A run touches those in the row below that start by its end, and end by its start.
    first = np.searchsorted(stop, start + stride, "left")
    count = np.searchsorted(start, stop + stride, "right") - first
    above = np.repeat(np.arange(len(start)), count)
    below = np.arange(len(above)) + np.repeat(first - (np.cumsum(count) - count), count)
    row, start = np.divmod(start, stride)
    return Runs(row, start, stop - row * stride, _united(above, below, len(row)))


def _united(one: Ints, other: Ints, n: int) -> Ints:
    """Return the component of each of n nodes of a graph, by its edges.

    The root of a tree hooks to a smaller neighbouring one, and trees are flattened by
    pointer jumping [1]_. Two rounds at least halve the roots that are to be joined.

    .. [1] Y. Shiloach and U. Vishkin, "An O(log n) parallel connectivity algorithm",
       Journal of Algorithms 3(1), 1982.
    """
    root = np.arange(n)
    while len(one):
        low = np.minimum(root[one], root[other])
        np.minimum.at(root, root[one], low)
        np.minimum.at(root, root[other], low)
        while not np.array_equal(root, higher := root[root]):
            root = higher
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
    return np.cumsum(root == np.arange(n))[root] - 1
