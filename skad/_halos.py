"""The halos of plain defects are taken off the map, by a second look without them.

Coarse features and the anomaly decoder see a defect from far away: good pixels around
it look anomalous, and a speck beside it is outvoted. What sees single pixels does not:
it tells where the defects are. So where an image has a plain defect, all that this fine
view finds unusual gets the mean colour of the rest, and the image is looked at again.
What the others saw only beside a defect was its halo: the lower of their two maps
counts. The fine view stays as it was, and so does the map where it sees a defect, and
the largest value of an image, and with it its score.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from skad._networks import MAP_STRIDE

# In nats, from nothing to all: by and by, so that rounding decides nothing.
_PLAIN = (13.0, 15.0)  # of an image, its largest: hardly a good one comes so far
_REPLACED = (2.5, 3.5)  # of a pixel, in the fine view: one good pixel in twenty
_KEPT = (3.0, 6.0)  # of a pixel, too: what is a defect by the fine view alone


def has_plain_defect(seen: Tensor) -> Tensor:
    """Tell which images are looked at again, by what was seen of them: (n,)."""
    return seen.amax((1, 2, 3)) > _PLAIN[0]


def without_halo(
    x: Tensor,
    seen: Tensor,
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
    seen : Tensor of shape (n, 2, h / 2, w / 2)
        Their maps, by what sees far and by what sees single pixels.
    first : Tensor of shape (n, H, W)
        The larger of the two, at the size of the input.
    look : callable
        Gives what is seen of such an x.
    to_input : callable
        Brings maps (n, h / 2, w / 2) to the size of the input.
    """
    far, fine = seen.unbind(1)
    replaced = (
        _share(fine, _REPLACED) * _share(seen.amax((1, 2, 3)), _PLAIN)[:, None, None]
    )
    _replace(x, F.interpolate(replaced[:, None], scale_factor=MAP_STRIDE))
    far_again, _ = look(x).unbind(1)
    around = to_input(torch.maximum(fine, torch.minimum(far, far_again)))
    kept = to_input(_share(fine, _KEPT))
    kept.masked_fill_(first == first.amax((1, 2), keepdim=True), 1.0)
    return around.lerp_(first, kept)  # never above the first


def _share(values: Tensor, range_: tuple[float, float]) -> Tensor:
    """Return 0 at the lower end of a range and below, 1 at the upper and above."""
    low, high = range_
    return ((values - low) / (high - low)).clamp_(0.0, 1.0)


def _replace(x: Tensor, share: Tensor) -> None:
    """Give pixels of images (n, C, h, w) so much (n, 1, h, w) of the others' mean."""
    rest = 1 - share
    x.mul_(rest)
    x.addcmul_(share, _sum(x) / _sum(rest).clamp_(min=1.0))


def _sum(x: Tensor) -> Tensor:
    """Sum rows, then columns: at once, it would round otherwise with more threads."""
    return x.sum(3, keepdim=True).sum(2, keepdim=True)
