"""All that is fitted to good images once the network is trained."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from skad.common.torch_settings import inference, side_by_side
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import batches_of
from skad.network.model import MAP_STRIDE, PatchAutoencoder, fold
from skad.network.preparation import Preparation
from skad.scoring.anomaly_map import PIXELS, AnomalyMapper
from skad.scoring.encoder_branches import (
    EncoderBranches,
    encoder_branches,
    new_features,
)
from skad.scoring.fusion import coarsest_branch, fit_tails, fit_usual
from skad.scoring.gaussians import (
    Gaussians,
    fit_gaussians,
    sum_moments,
)
from skad.scoring.neighbours import Candidates
from skad.scoring.network_branches import STRIDES, fit_context, network_branches

T = TypeVar("T")
Values = Callable[[int, Tensor], Tensor]  # of a group of images, by the other folds
N_FOLDS = 3  # of the images: calibration takes values from held-out images
_MOST_SAMPLES = 2**21  # pixels that quantiles are estimated from
_PIXELS_TOGETHER = 64 * 64  # of small images, which are computed in groups
_N_FIRST = 16  # groups of images that give spreads and components of an encoder


class Groups:
    """Good images in groups, each within a fold, that are computed side by side."""

    def __init__(
        self,
        images: Any,
        folds: list[np.ndarray],
        preparation: Preparation,
        device: Any,
    ) -> None:
        self.images = images
        self.preparation = preparation
        self.device = device
        self.n_images = sum(map(len, folds))
        self.n_folds = len(folds)
        pixels = math.prod(preparation.padded_size)
        most = max(1, _PIXELS_TOGETHER // pixels)
        parts = [np.array_split(places, -(-len(places) // most)) for places in folds]
        both = [(group, i) for i, some in enumerate(parts) for group in some]
        self.groups = [group for group, _ in both]
        self.folds = [i for _, i in both]
        self.at_a_time = 1  # on a GPU
        if device.type == "cpu":
            self.at_a_time = PIXELS["cpu"][1] // (len(self.groups[0]) * pixels)

    def each(
        self, compute: Callable[[int, Tensor], T], chosen: slice = slice(None)
    ) -> Iterator[T]:
        """Compute something of the fold and the network's input of every group."""
        groups, folds = self.groups[chosen], self.folds[chosen]

        @inference()  # in every thread
        def prepare_and_compute(numbered: tuple[int, np.ndarray]) -> T:
            fold, batch = numbered
            return compute(fold, self.preparation(batch, self.device))

        with closing(batches_of(self.images, groups)) as batches:
            numbered = zip(folds, batches, strict=True)
            yield from side_by_side(prepare_and_compute, numbered, self.at_a_time)


@inference()
def fit_mapper(
    network: PatchAutoencoder | None,
    preparation: Preparation,
    images: Any,
    folds: list[np.ndarray],
    encoder: FrozenEncoder | None = None,
) -> tuple[AnomalyMapper, Callable[[], Iterator[np.ndarray]]]:
    """Fit what scores, with a network, an encoder or both, to good images.

    `folds` are places of images. All calibration comes from Gaussians and neighbours of
    the other folds; so do the maps (k, H, W) of these images, some at a time in the
    order of their folds, that the function beside the mapper yields.
    """
    device = next((network or encoder).parameters()).device  # type: ignore[union-attr]
    groups = Groups(images, folds, preparation, device)
    held_out: list[Values] = []
    gaussians: list[Gaussians] = []
    context = branches = None
    if network is not None:
        gaussians, context, values = _fit_network(fold(network), groups)
        held_out.append(values)
    if encoder is not None:
        branches, values = _fit_encoder(encoder, groups, images.format.kind)
        held_out.append(values)

    def values_of(i: int, x: Tensor) -> Tensor:
        return torch.cat([values(i, x) for values in held_out])

    parts = preparation, network, gaussians, context, branches
    coarsest = coarsest_branch(network is not None, encoder is not None)
    inside = preparation.inside(MAP_STRIDE).to(device)
    every = -(-int(inside.sum()) * groups.n_images // _MOST_SAMPLES)

    def sample(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        found = values_of(i, x)[..., inside]  # branches, n, pixels
        return found[..., i % every :: every].flatten(1), found[coarsest].mean(1)

    samples, means = zip(*groups.each(sample), strict=True)
    tails, usual = fit_tails(torch.cat(samples, 1)), fit_usual(torch.cat(means))
    mapper = AnomalyMapper(*parts, tails, usual)

    def maps_of(i: int, x: Tensor) -> np.ndarray:
        return mapper.to_maps(mapper.joined(values_of(i, x))).cpu().numpy()

    def held_out_maps() -> Iterator[np.ndarray]:
        return groups.each(maps_of)

    return mapper, held_out_maps


def in_folds(
    places: np.ndarray, n_folds: int = N_FOLDS, parts: np.ndarray | None = None
) -> list[np.ndarray]:
    """Divide places into folds, evenly, and places of one part into the same."""
    if parts is None:
        parts = np.arange(len(places))
    _, first, numbers = np.unique(parts, return_index=True, return_inverse=True)
    numbers = np.argsort(np.argsort(first))[numbers]  # in the order of the places
    n = min(n_folds, len(first))
    return [places[numbers % n == i] for i in range(n)]


def _fit_network(folded: PatchAutoencoder, groups: Groups) -> tuple[Any, Any, Values]:
    """Fit Gaussians and context to the features of a network."""
    moments = sum_moments(
        groups.each(lambda i, x: (i, folded.encode(x)[-len(STRIDES) :]))
    )
    levels = [fit_gaussians(of_folds) for of_folds in moments]
    gaussians = [level for level, _ in levels]
    held_out = list(zip(*(without for _, without in levels), strict=True))

    def values(i: int, x: Tensor, context: Any) -> Tensor:
        return network_branches(folded, x, held_out[i], context, (0, 0), x.shape[2:])

    context = fit_context(
        groups.each(lambda i, x: (folded.encode(x)[-1], values(i, x, None)[1:]))
    )
    return gaussians, context, lambda i, x: values(i, x, context)


def _fit_encoder(
    encoder: FrozenEncoder, groups: Groups, kind: str
) -> tuple[EncoderBranches, Values]:
    """Choose neighbours and fit Gaussians to the features of an encoder."""
    features = new_features(encoder, groups.preparation, kind == "integer")
    features.to(groups.device)
    every = -(-len(groups.groups) // _N_FIRST)
    first = slice(None, None, every)
    features.fit(lambda f: groups.each(lambda _, x: f(x), first))
    candidates = Candidates(groups.n_folds, groups.n_images)

    def coarse_of_all() -> Iterator[tuple[int, tuple[Tensor]]]:
        for i, (fine, coarse) in groups.each(lambda i, x: (i, features(x))):
            candidates.add(fine, i)
            yield i, (coarse,)

    (moments,) = sum_moments(coarse_of_all())
    gaussians, others = fit_gaussians(moments)
    neighbours, other_neighbours = candidates.choose()

    def values(i: int, x: Tensor) -> Tensor:
        left_out = other_neighbours[i], others[i]
        return encoder_branches(features, x, *left_out, (0, 0), x.shape[2:])

    return EncoderBranches(features, neighbours, gaussians), values
