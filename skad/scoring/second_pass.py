"""The halos of plain defects are taken off the map, by a second look without them.

Coarse features and the anomaly decoder see a defect from far away: good pixels around
it look anomalous, and a speck beside it is outvoted. The fine view, of single pixels,
does not. So where an image has a plain defect, all that the fine view finds unusual
gets the mean colour of the rest, and the image is looked at again. What the other views
saw only beside a defect was its halo: the lower of their two maps counts. The fine view
stays as it was, and so does the whole map where the fine view sees a defect, and where
it is largest: the image keeps its score.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from skad.network.model import MAP_STRIDE

# In nats, from nothing to all: by and by, so that rounding decides nothing.
_PLAIN = (13.0, 15.0)  # the largest of an image: hardly a good one comes so far
_REPLACED = (2.5, 3.5)  # of a pixel in the fine view: about one good one in fifty
_KEPT = (3.0, 6.0)  # of a pixel in the fine view: a defect by that alone
_NEARLY_LARGEST = 0.9  # in shares of the largest of the image: kept, too, up to 1


def has_plain_defect(maps: Tensor) -> Tensor:
    """Tell which images are looked at again, by their maps (n, H, W): (n,)."""
    return maps.amax((1, 2)) > _PLAIN[0]


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
    largest = first.amax((1, 2), keepdim=True)  # inside the image, and the roi
    replaced = _share(largest, *_PLAIN) * _share(fine, *_REPLACED)
    _replace(x, F.interpolate(replaced[:, None], scale_factor=MAP_STRIDE))
    far_again, _ = look(x).unbind(1)
    around = to_input(torch.maximum(fine, torch.minimum(far, far_again)))
    kept = to_input(_share(fine, *_KEPT))
    nearly_largest = _share(first, _NEARLY_LARGEST * largest, largest)
    torch.maximum(kept, nearly_largest, out=kept)  # in place: images may be large
    return around.lerp_(first, kept)  # never above the first


def _share(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Return 0 at the lower end of a range and below, 1 at the upper and above."""
    return (values - low).div_(high - low).clamp_(0.0, 1.0)


def _replace(x: Tensor, share: Tensor) -> None:
    """Give pixels of images (n, C, h, w) so much (n, 1, h, w) of the others' mean."""
    rest = 1 - share
    x.mul_(rest)
    x.addcmul_(share, _sum(x) / _sum(rest).clamp_(min=1.0))


def _sum(x: Tensor) -> Tensor:
    """Sum rows, then columns: at once, it would round otherwise with more threads."""
    return x.sum(3, keepdim=True).sum(2, keepdim=True)
