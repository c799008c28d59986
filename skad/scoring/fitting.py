"""What maps are made with, learned from good images by a network that is trained."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from skad.common.torch_settings import inference
from skad.images.inputs import groupwise
from skad.network.folding import fold
from skad.network.model import MAP_STRIDE, PatchAutoencoder
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import PIXELS_AT_A_TIME, VIEWS, AnomalyMapper, evidence
from skad.scoring.context import Expectation, fit_expectation
from skad.scoring.fusion import combine, fit_tails, fit_view_lines
from skad.scoring.gaussians import N_FOLDS, fit_gaussians

T = TypeVar("T")
_MOST_PIXELS = 2**21  # that quantiles are estimated from
_PIXELS_TOGETHER = 64 * 64  # of images that are looked at together


@inference()
def fit_mapper(
    network: PatchAutoencoder,
    preparation: Preparation,
    images,
    places: np.ndarray,
    looks: Sequence[tuple[int, ...]],
) -> AnomalyMapper:
    """Learn from good images what the evidence on good images looks like.

    Expectation, tails and lines of the views come from Gaussians that were fitted
    without the image in question.

    Parameters
    ----------
    network : PatchAutoencoder
    preparation : Preparation
    images : Images
    places : ndarray of int
        Which of the images.
    looks : sequence of tuples of int
        The Gaussians see every image flipped along each of these sets of axes.
    """
    folded, device = fold(network), next(network.parameters()).device
    groups = _together(places, preparation.padded_size)
    pixels = len(groups[0]) * math.prod(preparation.working_size) * len(looks)
    at_a_time = PIXELS_AT_A_TIME // pixels if device.type == "cpu" else 1

    def each(compute: Callable[[int, Tensor], T]) -> Iterator[T]:
        @inference()  # in every thread
        def prepare_and_compute(i: int, group: np.ndarray) -> T:
            return compute(i, preparation(group, device))

        return groupwise(images, groups, prepare_and_compute, at_a_time)

    def features(_: int, x: Tensor) -> tuple[Tensor, ...]:
        return folded.encode(
            torch.cat([preparation.flipped(x, axes) for axes in looks])
        )

    fitted = fit_gaussians(lambda: each(features))
    gaussians = tuple(level for level, _ in fitted)
    without = list(zip(*(levels for _, levels in fitted), strict=True))
    inside = preparation.inside(MAP_STRIDE).to(device)
    every = -(-int(inside.sum()) * len(places) // _MOST_PIXELS)

    def unseen(i: int, x: Tensor, expectation: Expectation | None) -> Tensor:
        return evidence(folded, x, without[i % len(without)], expectation)

    expectation = fit_expectation(
        each(lambda i, x: (folded.encode(x)[-1], unseen(i, x, None)[:, 1:]))
    )

    def sampled(view: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        def sample(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            counts = view(unseen(i, x, expectation)).movedim(0, 1)[..., inside]
            return counts[..., i % every :: every].flatten(1), counts.amax(2)

        some, peaks = zip(*each(sample), strict=True)
        return torch.cat(some, 1), torch.cat(peaks, 1)  # (kinds, m), (kinds, n)

    tails = fit_tails(*sampled(lambda found: found), int(inside.sum()))
    lines = fit_view_lines(*sampled(lambda found: combine(found, tails, VIEWS)))
    return AnomalyMapper(network, preparation, gaussians, expectation, tails, lines)


def _together(places: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Divide the places of images into groups to be looked at together.

    Images of this size, (height, width), are looked at one by one if they are large.
    There are as many groups as folds, or more.
    """
    most = min(_PIXELS_TOGETHER // (size[0] * size[1]), len(places) // N_FOLDS)
    return np.array_split(places, -(-len(places) // max(1, most)))
