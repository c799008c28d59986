"""What good features look like at every place: a Gaussian a place, shrunk to one.

Where parts lie in one pose, a place has statistics of its own, as in PaDiM [1]_. Where
they do not, one Gaussian for all places says as much with less. How far the statistics
of a place are drawn towards those of all places is decided by the likelihood of good
images that they were not made from.

References
----------
.. [1] Defard, T., Setkov, A., Loesch, A., Audigier, R. (2021). PaDiM: a patch
   distribution modeling framework for anomaly detection and localization. ICPR
   Workshops, 475-489.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads

MOST_PLACES = 1024  # in larger images, neighbouring positions share a Gaussian
N_COMPONENTS = 32  # of the features
N_FOLDS = 3
_PLACES_ASKED = 64  # that decide how far all places are drawn together
_SHRINKAGES = (0.02, 0.1, 0.3, 1.0)
_RIDGE = 1e-3  # of the mean variance: keeps constant components harmless
_ROUNDING = 1e-9  # of the mean square: where all are constant, rounding is no variance


class Moments(NamedTuple):
    """Sums over good images, to be added up and turned into Gaussians."""

    weight: Tensor  # (P,): how many vectors
    first: Tensor  # (P, c)
    second: Tensor  # (P, c, c)

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))

    @limit_threads(1)
    def __iadd__(self, other: "Moments") -> "Moments":  # type: ignore[override]
        for a, b in zip(self, other, strict=True):
            a += b  # in place: there may be many places
        return self


class Gaussians(NamedTuple):
    """The state: everything that turns features into distances."""

    projection: Tensor  # (k, c): the first principal components of the features
    mean: Tensor  # (P, k): places are square cells, row by row
    whitening: Tensor  # (P, k, k): W with W W' = inverse covariance

    def distance(
        self,
        features: Tensor,
        corner: Sequence[int] = (0, 0),
        whole: Sequence[int] | None = None,
    ) -> Tensor:
        """Mahalanobis distances (n, h, w) of features (n, c, h, w).

        The features may be a part, cut at this upper left corner, of those of a whole
        image, (height, width).
        """
        n, _, h, w = features.shape
        whole = whole or (h, w)
        cell = _cell(whole)
        rows, columns = (
            slice(at // cell, -(-(at + side) // cell))
            for at, side in zip(corner, (h, w), strict=True)
        )
        grid = [-(-side // cell) for side in whole]
        mean, whitening = (
            t.unflatten(0, grid)[rows, columns] for t in (self.mean, self.whitening)
        )
        n_rows, n_columns = mean.shape[:2]
        top, left = (at % cell for at in corner)  # within the first cell
        z = _by_place(project(features, self.projection), cell, (top, left))
        z = z - mean.flatten(0, 1)[:, None]  # z may show the features themselves
        distance = (z @ whitening.flatten(0, 1)).norm(dim=2)  # P, n cell cell
        distance = distance.reshape(n_rows, n_columns, n, cell, cell)
        distance = distance.permute(2, 0, 3, 1, 4)
        distance = distance.reshape(n, n_rows * cell, n_columns * cell)
        return distance[:, top : top + h, left : left + w]


def fit_gaussians(
    features: Callable[[], Iterable[tuple[Tensor, ...]]],
) -> list[tuple[Gaussians, list[Gaussians]]]:
    """Fit Gaussians to the features of good images, at several levels.

    Parameters
    ----------
    features : callable
        Gives, each time it is called, the same images one after the other, or several
        small ones at a time: for every level the features (n, c, h, w) of n looks.

    Returns
    -------
    gaussians : Gaussians
    without : list of Gaussians
        The i-th was fitted without the looks i, i + N_FOLDS, i + 2 N_FOLDS, …
        If all come at a time there is nothing else to fit: they are not left out.
        Such a pair for every level.
    """
    projections = _principal_components(features())
    folds = _moments(features(), projections)
    return [_fit_level(*level) for level in zip(projections, folds, strict=True)]


@limit_threads(1)
def _fit_level(
    projection: Tensor, folds: list[Moments]
) -> tuple[Gaussians, list[Gaussians]]:
    means, covariances = _choose_shrinkages(folds)

    def fitted(moments: Moments) -> Gaussians:
        mean, covariance = _shrink(moments, means, covariances)
        lower = torch.linalg.cholesky(covariance)
        eye = torch.eye(lower.shape[-1], device=lower.device, dtype=lower.dtype)
        whitening = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        whitening = whitening.float().contiguous()  # stored and loaded: the same bits
        return Gaussians(projection, mean.float(), whitening)

    return fitted(_sum(folds)), [fitted(moments) for moments in _rests(folds)]


def gaussians_shapes(shape: tuple[int, int], c: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the fields of `Gaussians` for features (n, c, *shape)."""
    rows, columns = (-(-s // _cell(shape)) for s in shape)
    n_places, k = rows * columns, min(N_COMPONENTS, c)
    return {
        "projection": (k, c),
        "mean": (n_places, k),
        "whitening": (n_places, k, k),
    }


def project(features: Tensor, projection: Tensor) -> Tensor:
    """Keep the components (n, h, w, k) of features (n, c, h, w).

    Where all are kept, the features stay: to turn them would change no distance.
    """
    x = features.movedim(1, 3)
    return x if len(projection) == x.shape[3] else x @ projection.T


def _principal_components(images: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """For every level, the directions (k, c) in which features vary most."""
    sums = [[_first_two(x) for x in levels] for levels in images]
    return [_directions(torch.stack(level).sum(0)) for level in zip(*sums, strict=True)]


@limit_threads(1)
def _first_two(x: Tensor) -> Tensor:
    """Return sums (1 + 1 + c, c) over features (n, c, h, w): of one, x and x x'."""
    rows = x.movedim(1, 3).flatten(0, 2).double()  # n h w, c
    count = torch.full_like(rows[:1], len(rows))
    return torch.cat([count, rows.sum(0)[None], rows.T @ rows])


def _directions(sums: Tensor) -> Tensor:
    mean, second = sums[1] / sums[0], sums[2:] / sums[0]
    covariance = second - mean[:, None] * mean[None, :]
    directions = torch.linalg.eigh(covariance).eigenvectors  # ascending variance
    return directions.flip(1)[:, :N_COMPONENTS].T.float().contiguous()


def _moments(
    images: Iterable[tuple[Tensor, ...]], projections: list[Tensor]
) -> list[list[Moments]]:
    """For every level, the moments of every place in every fold that has images."""
    levels: list[list[Moments]] = [[] for _ in projections]
    for i, image in enumerate(images):
        for folds, x, projection in zip(levels, image, projections, strict=True):
            moments = _moments_of(project(x, projection))
            if i < N_FOLDS:
                folds.append(moments)
            else:
                folds[i % N_FOLDS] += moments
    return levels


@limit_threads(1)
def _moments_of(z: Tensor) -> Moments:
    cell = _cell(z.shape[1:3])
    x = _by_place(z, cell).double()  # P, m, k
    real = _by_place(torch.ones_like(z[..., :1]), cell).double()  # 0 where filled up
    return Moments(real.sum((1, 2)), x.sum(1), x.mT @ x)


def _shrink(
    moments: Moments, means: float, covariances: float
) -> tuple[Tensor, Tensor]:
    """Means (P, k) and covariances (P, k, k), drawn towards those of all places."""
    count = moments.weight[:, None]
    own = moments.first / count
    everywhere = moments.first.sum(0) / count.sum()
    mean = (1 - means) * own + means * everywhere
    scatter = _scatter(moments, mean)  # P, k, k
    pooled = (scatter * count[:, :, None]).sum(0) / count.sum()
    covariance = (1 - covariances) * scatter + covariances * pooled
    square = (moments.second.sum(0) / count.sum()).diagonal().mean()
    ridge = _RIDGE * pooled.diagonal().mean() + _ROUNDING * square + 1e-12
    eye = torch.eye(len(pooled), dtype=pooled.dtype, device=pooled.device)
    return mean, covariance + ridge * eye


def _scatter(moments: Moments, mean: Tensor) -> Tensor:
    """Mean outer product (P, k, k) of the deviations from these means."""
    own = moments.first / moments.weight[:, None]
    second = moments.second / moments.weight[:, None, None]
    cross = own[:, :, None] * mean[:, None, :]
    return second - cross - cross.mT + mean[:, :, None] * mean[:, None, :]


def _choose_shrinkages(folds: list[Moments]) -> tuple[float, float]:
    """Return the shrinkages of mean and covariance that left-out images like best.

    A random choice of places stands for all.
    """
    if len(folds) == 1:
        return 1.0, 1.0
    order = torch.randperm(
        len(folds[0].weight), generator=torch.Generator().manual_seed(0)
    )
    some = order[:_PLACES_ASKED].to(folds[0].weight.device)
    folds = [Moments(*(t[some] for t in moments)) for moments in folds]
    pairs = [(m, c) for m in (0.0, *_SHRINKAGES) for c in _SHRINKAGES]
    return max(pairs, key=lambda pair: _left_out_likelihood(folds, *pair))


def _left_out_likelihood(
    folds: list[Moments], means: float, covariances: float
) -> float:
    """Log-likelihood of each fold under the others, summed, doubled, less constants."""
    total = 0.0
    for left_out, rest in zip(folds, _rests(folds), strict=True):
        mean, covariance = _shrink(rest, means, covariances)
        lower = torch.linalg.cholesky(covariance)
        scatter = torch.cholesky_solve(_scatter(left_out, mean), lower)
        squared = scatter.diagonal(dim1=1, dim2=2).sum(1)
        log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(1)
        total -= float((left_out.weight * (squared + log_det)).sum())
    return total


def _by_place(z: Tensor, cell: int, inset: tuple[int, int] = (0, 0)) -> Tensor:
    """Sort features (n, h, w, k) by place: (P, m, k), m filled up with zeros.

    Places are square cells, row by row. The features may begin within the first one.
    """
    n, h, w, k = z.shape
    top, left = inset
    rows, columns = -(-(top + h) // cell), -(-(left + w) // cell)
    bottom, right = rows * cell - top - h, columns * cell - left - w
    if any((top, left, bottom, right)):
        z = F.pad(z, (0, 0, left, right, top, bottom))
    z = z.reshape(n, rows, cell, columns, cell, k).permute(1, 3, 0, 2, 4, 5)
    return z.reshape(rows * columns, n * cell * cell, k)


def _cell(shape: Sequence[int]) -> int:
    """Side of the smallest cells that make at most MOST_PLACES of them."""
    by_area = math.isqrt(shape[0] * shape[1] // MOST_PLACES)
    cell = max(1, by_area, -(-max(shape) // MOST_PLACES))
    while -(-shape[0] // cell) * -(-shape[1] // cell) > MOST_PLACES:
        cell += 1
    return cell


def _rests(folds: list[Moments]) -> list[Moments]:
    """For every fold the sum of the others; a single fold stands for itself."""
    if len(folds) == 1:
        return folds
    return [_sum(folds[:i] + folds[i + 1 :]) for i in range(len(folds))]


def _sum(moments: list[Moments]) -> Moments:
    total = moments[0]
    for other in moments[1:]:
        total = total + other
    return total
