"""From the values of all branches to one anomaly map.

On good images, a value has a tail probability p, the share of pixels that reach it;
-log p is its calibrated score. The anomaly map is a weighted mean of these scores. The
image as a whole counts as well: where the mean value of its coarsest Gaussians is
unusual, the map rises where it is high.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

N_KNOTS = 10  # of the calibration of a branch
# The segmentation decoder, which alone was trained to find anomalies, weighs more than
# the distances at two strides and the reconstruction error …
NETWORK_WEIGHTS = (4.0, 1.0, 1.0, 1.0)
# … and so do neighbours and Gaussians of an encoder, which has seen far more images.
ENCODER_WEIGHTS = (4.0, 4.0)
# Of the whole image, by the Gaussians of the network and by those of an encoder.
NETWORK_WHOLE, ENCODER_WHOLE = 1.0, 4.0
_TAILS = (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5)  # probabilities
_LEAST_STEP = 1e-5  # to the next knot, of the largest value: more than float32 rounds
_LEAST_SPREAD = 0.05  # of the last knots, and of whole images, where all are alike
_USUAL = 1.0  # standard deviations that a good image as a whole may be off


def fit_tails(values: Tensor) -> Tensor:
    """Fit the calibration: knots (branches, N_KNOTS, 2) for `piecewise_linear`.

    From values (branches, m) of good pixels to -log tail probability, by quantiles.
    """
    tails = torch.tensor(_TAILS, dtype=torch.float64)
    ranks = ((1 - tails) * (values.shape[1] - 1)).round().long()
    knots = values.sort(1).values.cpu()[:, ranks].double()  # branches, k
    # Strictly rising, also where good images are all alike.
    knots[:, -1] = knots[:, -1].maximum(knots[:, -2] + _LEAST_SPREAD)
    steps = torch.arange(len(tails)) * _LEAST_STEP
    knots += steps * knots.abs().amax(1, keepdim=True).clamp(min=1.0)
    scores = -tails.log().expand(len(values), -1)
    return torch.stack([knots, scores], 2).float().to(values.device)


def piecewise_linear(values: Tensor, knots: Tensor) -> Tensor:
    """Map values (m, …) by m piecewise linear functions with knots (m, k, 2).

    0 up to the first knot; beyond the last one the last line goes on. To sum up the
    rise along every line is far quicker than to search for that of each value.
    """
    x, y = knots.unbind(2)
    lengths = x.diff()
    slopes = y.diff() / lengths
    lengths[:, -1] = math.inf
    flat = values.flatten(1)
    total = torch.zeros_like(flat)
    lines = (each.split(1, 1) for each in (x[:, :-1], lengths, slopes))
    for start, length, slope in zip(*lines, strict=True):  # m, 1 each
        along = (flat - start).clamp_(min=0.0)
        total.addcmul_(torch.minimum(along, length, out=along), slope)
    return total.reshape(values.shape)


def weights_of(with_network: bool, with_encoder: bool) -> tuple[list[float], float]:
    """Return the weights of the branches, and that of the whole image."""
    weights = list(NETWORK_WEIGHTS) if with_network else []
    if with_encoder:
        return [*weights, *ENCODER_WEIGHTS], ENCODER_WHOLE
    return weights, NETWORK_WHOLE


def coarsest_branch(with_network: bool, with_encoder: bool) -> int:
    """Return the place of the coarsest Gaussians; those of an encoder come last."""
    own = len(NETWORK_WEIGHTS) if with_network else 0
    return own + len(ENCODER_WEIGHTS) - 1 if with_encoder else own - 2


def join(scores: Tensor, weights: Sequence[float]) -> Tensor:
    """Join calibrated scores (branches, …) >= 0: the logarithm of 1 + their mean.

    It is the weighted geometric mean of 1 + score: branches that agree count for more
    than a single loud one.
    """
    total = torch.zeros_like(scores[0])
    for score, weight in zip(scores, weights, strict=True):
        total.add_(score.log1p(), alpha=weight / sum(weights))
    return total


def fit_usual(means: Tensor) -> Tensor:
    """Return mean and standard deviation, (2,), of values (n,) of good images."""
    std = means.std(correction=0).clamp(min=_LEAST_SPREAD)
    return torch.stack([means.mean(), std])


def raise_by_whole(joined: Tensor, means: Tensor, usual: Tensor, part: float) -> Tensor:
    """Raise joined scores (n, h, w) of images whose mean values (n,) are unusual.

    The calibrated score of an image as a whole is minus the logarithm of the tail
    probability of a normal distribution, less that of a usual image. So much of it is
    added at the highest pixel, and elsewhere in proportion to the square: what deviates
    is what rises.
    """
    z = (means - usual[0]) / usual[1]
    score = torch.special.log_ndtr(z.new_tensor(-_USUAL)) - torch.special.log_ndtr(-z)
    added = part * score.clamp(min=0.0).log1p()
    peak = joined.amax((1, 2)).clamp(min=torch.finfo(joined.dtype).tiny)
    share = (joined / peak[:, None, None]).square()
    return joined + added[:, None, None] * share
