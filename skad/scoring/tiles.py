"""Large images, one overlapping tile after the other, in the memory of one tile."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

# In pixels, both multiples of the network's stride.
TILE = 1024  # side of what one tile adds to the map
MARGIN = 96  # around it: what one look shows depends on nothing over 91 pixels away

Pair = tuple[int, int]


def in_tiles(
    compute: Callable[[Tensor, Pair, Pair], Tensor], x: Tensor, stride: int
) -> Tensor:
    """Compute maps of images, tile by tile where the images are large.

    Parameters
    ----------
    compute : callable
        Takes a part of x, its upper left corner (row, column) and the size (H, W) of
        the whole; returns maps (n, ..., h / stride, w / stride) of that part. What it
        finds at a place depends on no pixel farther away than `MARGIN`.
    x : Tensor of shape (n, C, H, W)
    stride : int

    Returns
    -------
    Tensor of shape (n, ..., H / stride, W / stride)
        The maps of the whole, as if it had been one part, rounding aside.
    """
    height, width = whole = (x.shape[2], x.shape[3])
    if height * width <= (TILE + 2 * MARGIN) ** 2:
        return compute(x, (0, 0), whole)
    maps = torch.empty(0)  # filled by and by: to put parts together takes twice as much
    for (rows, high), (columns, wide) in product(_cut(height), _cut(width)):
        top, left = high.start, wide.start
        found = compute(x[:, :, high, wide], (top, left), whole)
        if not maps.numel():
            sides = (height // stride, width // stride)
            maps = found.new_empty((*found.shape[:-2], *sides))
        kept = found[..., _shrink(rows, top, stride), _shrink(columns, left, stride)]
        maps[..., _shrink(rows, 0, stride), _shrink(columns, 0, stride)] = kept
        del found, kept  # or they are held beside the next ones
    return maps


def _cut(size: int) -> Iterator[tuple[slice, slice]]:
    """Yield what each tile adds, and what it sees, of a side of so many pixels."""
    for start in range(0, size, TILE):
        stop = min(start + TILE, size)
        seen = slice(max(start - MARGIN, 0), min(stop + MARGIN, size))
        yield slice(start, stop), seen


def _shrink(pixels: slice, origin: int, stride: int) -> slice:
    """Return where pixels lie in maps of this stride that begin at the origin."""
    return slice((pixels.start - origin) // stride, (pixels.stop - origin) // stride)
