"""All that is fitted to good images once the network is trained."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.torch_settings import inference, limit_threads, side_by_side
from skad.images.inputs import batches_of
from skad.network.model import MAP_STRIDE, PatchAutoencoder, fold
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import (
    N_KNOTS,
    PIXELS,
    AnomalyMapper,
    around,
    branches,
    join,
    piecewise_linear,
)
from skad.scoring.gaussians import N_FOLDS, fit_gaussians, sum_moments

T = TypeVar("T")
_MOST_SAMPLES = 2**21  # pixels that quantiles are estimated from
_PIXELS_TOGETHER = 64 * 64  # of small images, which are computed in groups
_TAILS = (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # probabilities of good pixels
_PEAKS = (0.5, 0.9)  # quantiles of the largest value of a good image
_SHARE = 0.75  # of what the context predicts: an anomaly changes its context, too
_RIDGE = 1e-3  # of the mean square
_LEAST_STEP = 1e-5  # to the next knot, of the largest value: more than float32 rounds
_LEAST_SPREAD = 0.05  # of the peaks, where good images are all alike


@inference()
def fit_mapper(
    network: PatchAutoencoder,
    preparation: Preparation,
    images: Any,
    places: np.ndarray,
) -> AnomalyMapper:
    """Fit Gaussians, context, tails and scale to the good images at these places.

    All but the Gaussians come from Gaussians that were fitted without the image in
    question.
    """
    folded, device = fold(network), next(network.parameters()).device
    pixels = math.prod(preparation.padded_size)
    groups = _groups(places, pixels)
    at_a_time = 1  # on a GPU
    if device.type == "cpu":
        at_a_time = PIXELS["cpu"][1] // (len(groups[0]) * pixels)

    def each(compute: Callable[[int, Tensor], T]) -> Iterator[T]:
        @inference()  # in every thread
        def prepare_and_compute(numbered: tuple[int, np.ndarray]) -> T:
            i, batch = numbered
            return compute(i, preparation(batch, device))

        with closing(batches_of(images, groups)) as batches:
            yield from side_by_side(prepare_and_compute, enumerate(batches), at_a_time)

    folds = sum_moments(each(lambda _, x: folded.encode(x)))
    levels = [fit_gaussians(moments) for moments in folds]
    gaussians = [level for level, _ in levels]
    held_out = list(zip(*(without for _, without in levels), strict=True))

    def values(i: int, x: Tensor, context: nn.Linear | None) -> Tensor:
        return branches(folded, x, held_out[i % len(held_out)], context)

    context = fit_context(
        each(lambda i, x: (folded.encode(x)[-1], values(i, x, None)[1:]))
    )
    inside = preparation.inside(MAP_STRIDE).to(device)
    n_pixels = int(inside.sum())
    every = -(-n_pixels * len(places) // _MOST_SAMPLES)

    def sampled(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        found = values(i, x, context)[..., inside]  # branches, n, n_pixels
        return found[..., i % every :: every].flatten(1), found.amax(2)

    some, peaks = (torch.cat(t, 1) for t in zip(*each(sampled), strict=True))
    tails = fit_tails(some, peaks, n_pixels)

    def highest(i: int, x: Tensor) -> Tensor:
        scores = piecewise_linear(values(i, x, context)[..., inside], tails)
        return torch.stack([join(scores), scores[0]]).amax(2)  # 2, n

    scale = fit_scale(torch.cat(list(each(highest)), 1))
    return AnomalyMapper(network, preparation, gaussians, context, tails, scale)


def _groups(places: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Divide places into groups of small images, at least as many as folds."""
    most = min(_PIXELS_TOGETHER // pixels, len(places) // N_FOLDS)
    return np.array_split(places, -(-len(places) // max(1, most)))


def fit_context(images: Iterable[tuple[Tensor, Tensor]]) -> nn.Linear:
    """Fit a ridge regression of branches on the coarsest features around.

    Takes features (n, c, h, w) and values (branches, n, H, W) of good images.
    """
    moments = torch.stack([_context_moments(*pair) for pair in images]).sum(0)
    c = moments.shape[1] - 1
    square, product = moments[: c + 1], moments[c + 1 :]
    square.diagonal().add_(_RIDGE * square.diagonal().mean())
    weights = _SHARE * torch.linalg.solve(square, product.T).T.float()
    with torch.device("meta"):  # draws no weights
        context = nn.Linear(c, len(weights))
    state = {
        "weight": weights[:, :-1].contiguous(),
        "bias": weights[:, -1].contiguous(),
    }
    context.load_state_dict(state, assign=True)
    return context.requires_grad_(False)


@limit_threads(1)
def _context_moments(coarsest: Tensor, values: Tensor) -> Tensor:
    """Return sums of (x, y) x', x features and a one, y the values of branches."""
    x = F.pad(around(coarsest), (0, 0, 0, 0, 0, 1), value=1.0)  # n, c + 1, h, w
    y = F.adaptive_avg_pool2d(values.movedim(0, 1), (x.shape[2], x.shape[3]))
    xy = torch.cat([x, y], 1).movedim(1, 3).flatten(0, 2).double()
    return xy.T @ xy[:, : x.shape[1]]


def fit_tails(pixels: Tensor, peaks: Tensor, n_pixels: int) -> Tensor:
    """Fit calibrations, -log tail probability, by quantiles of good images.

    Takes values (branches, m) of good pixels, and the largest values (branches, n) of
    good images of `n_pixels` pixels. If the largest of so many reaches a value in a
    share q of the images, one pixel reaches it with a probability of about
    -log(1 - q) / n_pixels. Returns knots (branches, k, 2) for `piecewise_linear`.
    """
    tails = torch.tensor(_TAILS, dtype=torch.float64)
    heights = torch.tensor(_PEAKS, dtype=torch.float64)
    scores = torch.cat([-tails.log(), -(-heights.log() / n_pixels).log()])
    ranks = ((1 - tails) * (pixels.shape[1] - 1)).round().long()
    reached = pixels.sort(1).values[:, ranks.to(pixels.device)].double().cpu()
    highest = peaks.double().cpu().quantile(heights, dim=1).T
    values = torch.cat([reached, highest], 1).cummax(1).values  # branches, k
    # Strictly rising, also where good images are all alike.
    values[:, -1] = values[:, -1].maximum(values[:, -2] + _LEAST_SPREAD)
    steps = torch.arange(N_KNOTS) * _LEAST_STEP
    values += steps * values.abs().amax(1, keepdim=True).clamp(min=1.0)
    scores = scores.cummax(0).values + steps
    knots = torch.stack([values, scores.expand(len(values), -1)], 2)
    return knots.float().to(pixels.device)


def fit_scale(peaks: Tensor) -> Tensor:
    """Fit a factor that brings the second of two usual peaks, of (2, n), to the first.

    A peak below 1 counts as 1: what is silent on good images is not blown up.
    """
    first, second = peaks.double().cpu().quantile(0.5, dim=1).clamp(min=1.0)
    return (first / second).float().to(peaks.device)
