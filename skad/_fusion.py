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

from collections.abc import Sequence

import torch
from torch import Tensor

_RARITIES = (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # of good pixels
_PEAKS = (0.5, 0.9)  # quantiles of the largest evidence in a good image
N_KNOTS = len(_RARITIES) + len(_PEAKS)
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
        values[:, k] = torch.maximum(values[:, k], values[:, k - 1] + steps[k])
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
    n, _, height, width = evidence.shape
    joined = evidence.new_zeros(n, len(views), height, width)
    kinds = zip(evidence.movedim(1, 0), tails, strict=True)
    for k, (kind, tail) in enumerate(kinds):
        level = surprise(kind, tail).log1p_()
        for i, weights in enumerate(views):
            if weights[k]:
                joined[:, i].add_(level, alpha=weights[k] / sum(weights))
    return joined.expm1_()


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


def surprise(values: Tensor, tail: Tensor) -> Tensor:
    """Tell how surprising values are, >= 0, by the knots (k, 2) of their tail.

    Between the knots, and beyond the last two, lines give the surprise.
    """
    knots, levels = tail.T.contiguous()
    lines = torch.stack([knots[:-1], levels[:-1], levels.diff() / knots.diff()])
    flat = values.flatten()
    which = torch.bucketize(flat, knots[1:-1])
    start, level, slope = (line.index_select(0, which) for line in lines)
    return level.addcmul_(flat - start, slope).clamp_(min=0.0).reshape(values.shape)
