"""The halo of a plain defect is taken off the map, by a second look without the defect.

Coarse features and the anomaly decoder see a defect from far away: good pixels around
it look anomalous, and a speck beside it is outvoted. So where an image is anomalous
beyond doubt, its pixels get the mean colour of its others, and it is looked at again.
What looked anomalous only beside the defect was its halo: around the defect the lower
of the two maps counts. What is beyond doubt keeps its values, and so the image its
largest one, and with it its score.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from skad._networks import MAP_STRIDE

# In nats. Of good images that were held out, none came to 15: see docs/method.md.
_DOUBT = 16.0  # beyond this, pixels are replaced in part …
_NO_DOUBT = 18.0  # … and wholly: by and by, so that rounding decides nothing


def has_plain_defect(cells: Tensor) -> Tensor:
    """Tell of maps (n, h/2, w/2) in which ones something is to be replaced: (n,)."""
    return cells.amax((1, 2)) > _DOUBT


def without_halo(
    x: Tensor,
    cells: Tensor,
    first: Tensor,
    *,
    look: Callable[[Tensor], Tensor],
    to_input: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the maps (n, H, W) of images, the halos of plain defects taken off.

    Parameters
    ----------
    x : Tensor of shape (n, C, h, w)
        What the network sees of the images; overwritten, for they may be large.
    cells : Tensor of shape (n, h / 2, w / 2)
        Their maps.
    first : Tensor of shape (n, H, W)
        The same, at the size of the input.
    look : callable
        Gives the maps of such an x.
    to_input : callable
        Brings such maps to the size of the input.
    """
    plain = ((cells - _DOUBT) / (_NO_DOUBT - _DOUBT)).clamp_(0.0, 1.0)
    _replace(x, F.interpolate(plain[:, None], scale_factor=MAP_STRIDE))
    around = to_input(torch.minimum(cells, look(x)))
    kept = to_input(plain).masked_fill_(first == first.amax((1, 2), keepdim=True), 1.0)
    return around.lerp_(first, kept)  # never above the first


def _replace(x: Tensor, share: Tensor) -> None:
    """Give pixels of images (n, C, h, w) so much (n, 1, h, w) of the others' mean."""
    rest = 1 - share
    x.mul_(rest)
    x.addcmul_(share, _sum(x) / _sum(rest).clamp_(min=1.0))


def _sum(x: Tensor) -> Tensor:
    """Sum rows, then columns: at once, it would round otherwise with more threads."""
    return x.sum(3, keepdim=True).sum(2, keepdim=True)
