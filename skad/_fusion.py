"""Several kinds of evidence, brought to one scale and joined to one map.

The scale is how rare a value is on good images. In a view, the logarithms of
1 + surprise are joined: a kind that is blind on these images adds little noise, and
kinds that agree say more than one that shouts. (Fisher's sum of the surprises
themselves [1]_ lets the loudest kind decide alone.) Of several views, each in units of
what it usually reaches in a good image, the largest is heard at every pixel: what is
too small for most kinds to see is not outvoted by them.

References
----------
.. [1] Fisher, R. A. (1932). Statistical methods for research workers, 4th edition,
   section 21.1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_RARITIES = (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of good pixels
_PEAKS = (0.5, 0.9)  # quantiles of the largest evidence in a good image
N_KNOTS = len(_RARITIES) + len(_PEAKS)
_LEAST_RISE = 1e-6  # of a value, to the next one: more than float32 rounds
_LEAST_SPREAD = 0.05  # of the peaks: where good images are all alike


def fit_tails(pixels: Tensor, peaks: Tensor, n_pixels: int) -> Tensor:
    """Tell how surprising values are, by their quantiles on good images.

    Parameters
    ----------
    pixels : Tensor of shape (kinds, m)
        Evidence of good pixels.
    peaks : Tensor of shape (kinds, n)
        The largest evidence of every good image.
    n_pixels : int
        Pixels of an image. If the largest of so many reaches a value in a share q of
        the images, one pixel reaches it in a share of about -log(1 - q) / n_pixels.

    Returns
    -------
    tails : Tensor of shape (kinds, k, 2)
    """
    rarities = torch.tensor(_RARITIES, dtype=torch.float64)
    heights = torch.tensor(_PEAKS, dtype=torch.float64)
    levels = torch.cat([-rarities.log(), -(-heights.log() / n_pixels).log()])
    ranks = ((1 - rarities) * (pixels.shape[1] - 1)).round().long()
    ordered = pixels.sort(1).values.double().cpu()
    values = torch.cat(
        [ordered[:, ranks], peaks.double().cpu().quantile(heights, dim=1).T], 1
    )  # kinds, k
    steps = torch.full((N_KNOTS,), 1e-4, dtype=torch.float64)
    steps[-1] = _LEAST_SPREAD
    for k in range(1, N_KNOTS):  # rising, also where good images are all alike
        before = values[:, k - 1]
        step = torch.maximum(steps[k], _LEAST_RISE * before.abs())
        values[:, k] = torch.maximum(values[:, k], before + step)
        levels[k] = torch.maximum(levels[k], levels[k - 1] + 1e-4)
    levels = levels.expand(len(values), -1)
    return torch.stack([values, levels], 2).float().to(pixels.device)


def combine(
    evidence: Tensor, tails: Tensor, views: Sequence[Sequence[float]]
) -> Tensor:
    """Join evidence (n, kinds, h, w) to views (n, views, h, w), >= 0.

    Each is a weighted geometric mean of 1 + surprise over the kinds, less 1; a view is
    given as the weights of the kinds.
    """
    levels = surprise(evidence.movedim(1, 0), tails).log1p_()  # kinds, n, h, w
    joined = levels.new_zeros(len(views), *levels.shape[1:])
    for view, weights in zip(joined, views, strict=True):
        for level, weight in zip(levels, weights, strict=True):
            if weight:
                view.add_(level, alpha=weight / sum(weights))
    return joined.expm1_().movedim(0, 1)


def view_scales(peaks: Tensor) -> Tensor:
    """Return factors (views,) that bring views to the scale of the first one.

    With them, the largest values (n, views) of good images have equal medians, of 1 nat
    at least.
    """
    usual = peaks.double().quantile(0.5, dim=0).clamp(min=1.0)
    return (usual[0] / usual).float()


def loudest(views: Tensor, scales: Tensor) -> Tensor:
    """Return the largest (n, h, w) of views (n, views, h, w) on one scale."""
    return (views * scales[:, None, None]).amax(1)


def surprise(values: Tensor, tails: Tensor) -> Tensor:
    """Tell how surprising values (kinds, …) are, >= 0, by tails (kinds, k, 2).

    Lines from knot to knot give the surprise, from 0 at the first; the last line goes
    on. It is the sum of what each has risen by where the value lies: far quicker than
    to search for the line of every value.
    """
    knots, levels = tails.unbind(2)
    lengths = knots.diff()
    slopes = levels.diff() / lengths
    lengths[:, -1] = math.inf
    flat = values.flatten(1)
    total = torch.zeros_like(flat)
    lines = (column.split(1, 1) for column in (knots[:, :-1], lengths, slopes))
    for start, length, slope in zip(*lines, strict=True):  # kinds, 1
        along = (flat - start).clamp_(min=0.0)
        total.addcmul_(torch.minimum(along, length, out=along), slope)
    return total.reshape(values.shape)
