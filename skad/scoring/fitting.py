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
    PIXELS,
    STRIDES,
    AnomalyMapper,
    around,
    branches,
)
from skad.scoring.gaussians import N_FOLDS, fit_gaussians, sum_moments

T = TypeVar("T")
_MOST_SAMPLES = 2**21  # pixels that quantiles are estimated from
_PIXELS_TOGETHER = 64 * 64  # of small images, which are computed in groups
_TAILS = (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5)  # probabilities
_RIDGE = 1e-3  # of the mean square
_LEAST_STEP = 1e-5  # to the next knot, of the largest value: more than float32 rounds
_LEAST_SPREAD = 0.05  # of the last knots, where good images are all alike


@inference()
def fit_mapper(
    network: PatchAutoencoder,
    preparation: Preparation,
    images: Any,
    places: np.ndarray,
) -> AnomalyMapper:
    """Fit Gaussians, context and tails to the good images at these places.

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

    folds = sum_moments(each(lambda _, x: folded.encode(x)[-len(STRIDES) :]))
    levels = [fit_gaussians(moments) for moments in folds]
    gaussians = [level for level, _ in levels]
    held_out = list(zip(*(without for _, without in levels), strict=True))

    def values(i: int, x: Tensor, context: nn.Linear | None) -> Tensor:
        left_out = held_out[i % len(held_out)]
        return branches(folded, x, left_out, context, (0, 0), x.shape[2:])

    context = fit_context(
        each(lambda i, x: (folded.encode(x)[-1], values(i, x, None)[1:]))
    )
    inside = preparation.inside(MAP_STRIDE).to(device)
    every = -(-int(inside.sum()) * len(places) // _MOST_SAMPLES)

    def sampled(i: int, x: Tensor) -> Tensor:
        found = values(i, x, context)[..., inside]  # branches, n, pixels
        return found[..., i % every :: every].flatten(1)

    tails = fit_tails(torch.cat(list(each(sampled)), 1))
    return AnomalyMapper(network, preparation, gaussians, context, tails)


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
    weights = torch.linalg.solve(square, product.T).T.float()
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
