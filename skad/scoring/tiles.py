"""Large images, one overlapping tile after the other, in the memory of one tile."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

# In pixels, both multiples of the network's stride.
TILE = 1024  # side of what one tile adds to the map
MARGIN = 96  # around it: a map depends on nothing more than 91 pixels away …
ENCODER_MARGIN = 192  # … and what an encoder adds, on little that is farther


def in_tiles(
    compute: Callable[..., Tensor], x: Tensor, stride: int, margin: int
) -> Tensor:
    """Compute maps (n, …, H / stride, W / stride) of images (n, C, H, W).

    `compute` takes a part of x, its upper left corner (row, column) and the size of the
    whole, and returns the maps of that part.
    """
    height, width = whole = (x.shape[2], x.shape[3])
    maps = torch.empty(0)  # filled tile by tile: to join them takes twice the memory
    for top, left in product(range(0, height, TILE), range(0, width, TILE)):
        row, column = max(top - margin, 0), max(left - margin, 0)
        tile = x[:, :, row : top + TILE + margin, column : left + TILE + margin]
        found = compute(tile, (row, column), whole)
        if not maps.numel():
            size = (height // stride, width // stride)
            maps = found.new_empty((*found.shape[:-2], *size))
        kept = found[..., _part(top - row, stride), _part(left - column, stride)]
        maps[..., _part(top, stride), _part(left, stride)] = kept
        del found, kept  # or they are held beside the next ones
    return maps


def _part(start: int, stride: int) -> slice:
    """Return what a tile adds that starts at this pixel, in maps of this stride."""
    return slice(start // stride, (start + TILE) // stride)
