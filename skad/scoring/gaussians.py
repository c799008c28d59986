"""One Gaussian per position: how far features are from those of good images.

Where parts lie in one pose, every position has statistics of its own, as in PaDiM [1]_.
Where they do not, one Gaussian for all positions says as much with fewer numbers. So
means and covariances of a position are shrunk towards those of all positions, by the
amounts that maximise held-out likelihood.

References
----------
.. [1] Defard, T., Setkov, A., Loesch, A., Audigier, R. (2021). PaDiM: a patch
   distribution modeling framework for anomaly detection and localization. ICPR
   Workshops, 475-489.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads

N_FOLDS = 3  # for the held-out likelihood, and to calibrate with held-out distances
_MOST_CELLS = 1024  # in larger images, neighbouring positions share a Gaussian
_N_COMPONENTS = 32  # of the features, that are kept
_SHRINKAGES = (0.02, 0.1, 0.3, 1.0)
_CELLS_TRIED = 64  # that stand for all when the shrinkage is chosen
_RIDGE = 1e-3  # of the mean variance: keeps constant components harmless
_ROUNDING = 1e-9  # of the mean square: where all is constant, rounding is no variance


class Gaussians(nn.Module):
    """A Gaussian for each of P cells, square groups of positions, row by row."""

    projection: Tensor  # (k, c): the first principal components of the features
    mean: Tensor  # (P, k)
    whitening: Tensor  # (P, k, k): W with W W' = inverse covariance

    def __init__(self, projection: Tensor, mean: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    @classmethod
    def empty(cls, c: int, size: Sequence[int]) -> Self:
        """Return Gaussians without values, for features (n, c, *size)."""
        cell = _cell_side(size)
        n_cells = math.prod(-(-side // cell) for side in size)
        k = min(_N_COMPONENTS, c)
        shapes = (k, c), (n_cells, k), (n_cells, k, k)
        return cls(*(torch.empty(shape) for shape in shapes))

    def distance(
        self,
        features: Tensor,
        corner: Sequence[int] = (0, 0),
        whole: Sequence[int] | None = None,
    ) -> Tensor:
        """Return Mahalanobis distances (n, h, w) of features (n, c, h, w).

        The features may be a part, cut at this upper left corner, of those of a whole
        image, (height, width).
        """
        n, _, h, w = features.shape
        whole = whole or (h, w)
        cell = _cell_side(whole)
        top, left = (at % cell for at in corner)  # within the first cell
        rows, columns = (
            slice(at // cell, -(-(at + side) // cell))
            for at, side in zip(corner, (h, w), strict=True)
        )
        grid = [-(-side // cell) for side in whole]
        mean = self.mean.unflatten(0, grid)[rows, columns]
        whitening = self.whitening.unflatten(0, grid)[rows, columns]

        z = features.movedim(1, 3)  # n, h, w, c
        if len(self.projection) < z.shape[3]:  # to turn all of them changes no distance
            z = z @ self.projection.T
        z = _by_cell(z, cell, (top, left))
        z = z - mean.flatten(0, 1)[:, None]  # P, n cell cell, k
        distance = (z @ whitening.flatten(0, 1)).norm(dim=2)
        distance = distance.reshape(*mean.shape[:2], n, cell, cell)
        distance = distance.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        return distance[:, top : top + h, left : left + w]


def sum_moments(images: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """Sum the moments of features over images, for every level and fold.

    Takes, for each image, the features (n, c, h, w) of all levels; returns moments
    (folds, P, c + 1, c + 1) of all levels. Image i belongs to fold i % N_FOLDS.
    """
    levels: list[list[Tensor]] = []
    for i, features in enumerate(images):
        levels = levels or [[] for _ in features]
        for folds, x in zip(levels, features, strict=True):
            if i < N_FOLDS:
                folds.append(_moments(x))
            else:
                folds[i % N_FOLDS] += _moments(x)
    return [torch.stack(folds) for folds in levels]


@limit_threads(1)
def _moments(features: Tensor) -> Tensor:
    """Return moments (P, c + 1, c + 1) of features (n, c, h, w): float64.

    They are the sums, over the positions of a cell, of z z', where z is (x, 1).
    """
    z = F.pad(features.movedim(1, 3), (0, 1), value=1.0)  # n, h, w, c + 1
    z = _by_cell(z, _cell_side(z.shape[1:3])).double()
    return z.mT @ z


@limit_threads(1)
def fit_gaussians(folds: Tensor) -> tuple[Gaussians, list[Gaussians]]:
    """Fit Gaussians to moments (folds, P, c + 1, c + 1).

    Also returns, for every fold, those that are fitted without it; a single fold is not
    left out.
    """
    projection = _principal_components(folds.sum((0, 1)))
    basis = torch.block_diag(projection.double(), projection.new_ones(1, 1).double())
    folds = basis @ folds @ basis.T
    rest = folds.sum(0) - folds if len(folds) > 1 else folds
    shrinkages = _choose_shrinkages(folds, rest) if len(folds) > 1 else (1.0, 1.0)

    def fit(moments: Tensor) -> Gaussians:
        mean, covariance = _shrink(moments, *shrinkages)
        lower = torch.linalg.cholesky(covariance)
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        whitening = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        return Gaussians(projection, mean.float(), whitening.float().contiguous())

    return fit(folds.sum(0)), [fit(moments) for moments in rest]


def _principal_components(moments: Tensor) -> Tensor:
    """Return the directions (k, c) in which features vary most, as float32."""
    c = len(moments) - 1
    if c <= _N_COMPONENTS:
        return torch.eye(c, device=moments.device)
    mean = moments[:-1, -1] / moments[-1, -1]
    covariance = moments[:-1, :-1] / moments[-1, -1] - mean[:, None] * mean
    directions = torch.linalg.eigh(covariance).eigenvectors  # ascending variance
    return directions.flip(1)[:, :_N_COMPONENTS].T.float().contiguous()


def _shrink(
    moments: Tensor, of_means: float, of_covariances: float
) -> tuple[Tensor, Tensor]:
    """Return means (P, k) and covariances (P, k, k), shrunk to those of all cells."""
    every = moments.sum(0)
    mean = torch.lerp(
        moments[:, :-1, -1] / moments[:, -1:, -1],
        every[:-1, -1] / every[-1, -1],
        of_means,
    )
    scatter = _scatter(moments, mean)
    count = moments[:, -1, -1]
    pooled = (scatter * count[:, None, None]).sum(0) / count.sum()
    square = every[:-1, :-1].diagonal().mean() / every[-1, -1]
    ridge = _RIDGE * pooled.diagonal().mean() + _ROUNDING * square + 1e-12
    eye = torch.eye(len(pooled), dtype=pooled.dtype, device=pooled.device)
    return mean, torch.lerp(scatter, pooled, of_covariances) + ridge * eye


def _scatter(moments: Tensor, mean: Tensor) -> Tensor:
    """Return the mean outer products (P, k, k) of deviations from these means."""
    k = mean.shape[1]
    eye = torch.eye(k, dtype=mean.dtype, device=mean.device).expand(len(mean), k, k)
    less_mean = torch.cat([eye, -mean[:, :, None]], 2)  # P, k, k + 1
    return less_mean @ moments @ less_mean.mT / moments[:, -1:, -1:]


def _choose_shrinkages(folds: Tensor, rest: Tensor) -> tuple[float, float]:
    """Return the shrinkages of means and covariances that suit held-out folds best."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(folds.shape[1], generator=generator)[:_CELLS_TRIED]
    folds, rest = (moments[:, some.to(moments.device)] for moments in (folds, rest))
    pairs = [(m, c) for m in (0.0, *_SHRINKAGES) for c in _SHRINKAGES]
    return max(pairs, key=lambda pair: _held_out_likelihood(folds, rest, *pair))


def _held_out_likelihood(
    folds: Tensor, rest: Tensor, of_means: float, of_covariances: float
) -> float:
    """Return twice the log-likelihood of folds under the rest, without constants."""
    total = 0.0
    for held_out, others in zip(folds, rest, strict=True):
        mean, covariance = _shrink(others, of_means, of_covariances)
        lower = torch.linalg.cholesky(covariance)
        scatter = torch.cholesky_solve(_scatter(held_out, mean), lower)
        squared = scatter.diagonal(dim1=1, dim2=2).sum(1)
        log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(1)
        total -= float((held_out[:, -1, -1] * (squared + log_det)).sum())
    return total


def _by_cell(z: Tensor, cell: int, inset: tuple[int, int] = (0, 0)) -> Tensor:
    """Sort vectors (n, h, w, k) by cell: (P, n cell cell, k), filled up with zeros.

    They may begin within the first cell, so many positions from its corner.
    """
    n, h, w, k = z.shape
    top, left = inset
    bottom, right = -(top + h) % cell, -(left + w) % cell
    if any((top, left, bottom, right)):
        z = F.pad(z, (0, 0, left, right, top, bottom))
    rows, columns = z.shape[1] // cell, z.shape[2] // cell
    z = z.reshape(n, rows, cell, columns, cell, k).permute(1, 3, 0, 2, 4, 5)
    return z.reshape(rows * columns, n * cell * cell, k)


def _cell_side(size: Sequence[int]) -> int:
    """Return the side of the smallest cells that are not too many."""
    cell = max(1, math.isqrt(math.prod(size) // _MOST_CELLS), max(size) // _MOST_CELLS)
    while math.prod(-(-side // cell) for side in size) > _MOST_CELLS:
        cell += 1
    return cell
