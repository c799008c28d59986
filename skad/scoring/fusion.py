"""Several kinds of evidence, brought to one scale and joined to one map.

The scale is how rare a value is on good images. In a view, the logarithms of
1 + surprise are joined: a kind that is blind on these images adds little noise, and
kinds that agree say more than one that shouts. (Fisher's sum of the surprises
themselves [1]_ lets the loudest kind decide alone.) Of several views, brought to one
scale by how often good pixels reach a value, the largest is heard at every pixel: what
is too small for most kinds to see is not outvoted by them.

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
_VIEW_RARITIES = (0.5, 0.1, 0.01, 0.001)  # where views are made to agree
N_VIEW_KNOTS = len(_VIEW_RARITIES) + 3  # with 0, the usual peak and twice as much
_STEEPEST = 3.0  # of lines; 1 is the factor that brings peaks to those of the first


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
    reached = peaks.double().cpu().quantile(heights, dim=1).T
    values = torch.cat([_reached_by(pixels, rarities), reached], 1)  # kinds, k
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
    levels = follow(evidence.movedim(1, 0), tails).log1p_()  # kinds, n, h, w
    joined = levels.new_zeros(len(views), *levels.shape[1:])
    for view, weights in zip(joined, views, strict=True):
        for level, weight in zip(levels, weights, strict=True):
            if weight:
                view.add_(level, alpha=weight / sum(weights))
    return joined.expm1_().movedim(0, 1)


def fit_view_lines(pixels: Tensor, peaks: Tensor) -> Tensor:
    """Tell what brings views to the scale of the first one.

    What as many good pixels reach in one view as in another becomes equal, and so does
    what is usually the largest in a good image, of 1 nat at least; from there on, a
    factor brings them there. A view that is silent on good images is not blown up.

    Parameters
    ----------
    pixels : Tensor of shape (views, m)
        What good pixels have.
    peaks : Tensor of shape (views, n)
        The largest of every good image.

    Returns
    -------
    lines : Tensor of shape (views - 1, k, 2)
        Of every other view, for `follow`.
    """
    usual = peaks.double().cpu().quantile(0.5, dim=1).clamp(min=1.0)
    reached = _reached_by(pixels, torch.tensor(_VIEW_RARITIES, dtype=torch.float64))
    factor = usual[0] / usual
    columns = [torch.zeros_like(usual)]
    for column in (*reached.T, usual):  # rising, and no line is too steep
        before = columns[-1]
        column = torch.maximum(column, before + _LEAST_RISE * usual.maximum(before))
        shortest = (column[0] - before[0]) / (_STEEPEST * factor)
        columns.append(torch.maximum(column, before + shortest))
    knots = torch.stack([*columns, 2 * columns[-1]], 1)  # views, k
    levels = knots[:1].expand(len(knots) - 1, -1)
    return torch.stack([knots[1:], levels], 2).float().to(pixels.device)


def on_one_scale(views: Tensor, lines: Tensor) -> Tensor:
    """Bring views (n, views, h, w) to the scale of the first one."""
    others = follow(views[:, 1:].movedim(1, 0), lines).movedim(0, 1)
    return torch.cat([views[:, :1], others], 1)


def follow(values: Tensor, lines: Tensor) -> Tensor:
    """Return how far lines (kinds, k, 2) have risen at values (kinds, …), >= 0.

    They go from knot to knot, from 0 at the first; the last line goes on. Along tails,
    they give how surprising values are. That is the sum of what each line has risen by
    where the value lies: far quicker than to search for the line of every value.
    """
    knots, levels = lines.unbind(2)
    lengths = knots.diff()
    slopes = levels.diff() / lengths
    lengths[:, -1] = math.inf
    flat = values.flatten(1)
    total = torch.zeros_like(flat)
    columns = (each.split(1, 1) for each in (knots[:, :-1], lengths, slopes))
    for start, length, slope in zip(*columns, strict=True):  # kinds, 1
        along = (flat - start).clamp_(min=0.0)
        total.addcmul_(torch.minimum(along, length, out=along), slope)
    return total.reshape(values.shape)


def _reached_by(pixels: Tensor, rarities: Tensor) -> Tensor:
    """Return what such shares of pixels (kinds, m) reach: (kinds, k), float64."""
    ranks = ((1 - rarities) * (pixels.shape[1] - 1)).round().long()
    return pixels.sort(1).values.double().cpu()[:, ranks]
