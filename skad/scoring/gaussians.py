"""One Gaussian per position: how far features are from those of good images.

As in PaDiM [1]_, with means and covariances shrunk towards those of all positions.

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

_MOST_CELLS = 1024  # in larger images, neighbouring positions share a Gaussian
N_COMPONENTS = 32  # of the features, that are kept
_SHRINKAGE = 0.1  # of means and covariances
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
        n_cells, k = math.prod(_cells(size)[1]), min(N_COMPONENTS, c)
        shapes = (k, c), (n_cells, k), (n_cells, k, k)
        return cls(*(torch.empty(shape) for shape in shapes))

    def distance(
        self, features: Tensor, corner: Sequence[int], whole: Sequence[int]
    ) -> Tensor:
        """Return Mahalanobis distances (n, h, w) of features (n, c, h, w).

        The features may be a part, cut at this upper left corner, of those of a whole
        image, (height, width).
        """
        n, _, h, w = features.shape
        cell, grid = _cells(whole)
        top, left = (at % cell for at in corner)  # within the first cell
        rows, columns = (
            slice(at // cell, -(-(at + side) // cell))
            for at, side in zip(corner, (h, w), strict=True)
        )
        mean = self.mean.unflatten(0, grid)[rows, columns]
        whitening = self.whitening.unflatten(0, grid)[rows, columns]

        z = features.movedim(1, 3)  # n, h, w, c
        if len(self.projection) < z.shape[3]:  # to turn all of them changes no distance
            z = z @ self.projection.T
        z = _by_cell(z, cell, (top, left)) - mean.flatten(0, 1)[:, None]
        distance = (z @ whitening.flatten(0, 1)).norm(dim=2)  # P, n cell cell
        distance = distance.reshape(*mean.shape[:2], n, cell, cell)
        distance = distance.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        return distance[:, top : top + h, left : left + w]


def sum_moments(images: Iterable[tuple[int, Sequence[Tensor]]]) -> list[Tensor]:
    """Sum moments over images: (folds, P, c + 1, c + 1), for every level of features.

    Takes a fold, and the features (n, c, h, w) of all levels, for one group of images
    after the other; the first of a fold come in its order.
    """
    levels: list[list[Tensor]] = []
    for i, features in images:
        levels = levels or [[] for _ in features]
        for folds, x in zip(levels, features, strict=True):
            if i == len(folds):
                folds.append(_moments(x))
            else:
                folds[i] += _moments(x)
    return [torch.stack(folds) for folds in levels]


@limit_threads(1)
def _moments(features: Tensor) -> Tensor:
    """Return moments (P, c + 1, c + 1), float64, of features (n, c, h, w).

    They are the sums, over the positions of a cell, of z z', where z is (x, 1).
    """
    z = F.pad(features.movedim(1, 3), (0, 1), value=1.0)  # n, h, w, c + 1
    z = _by_cell(z, _cells(z.shape[1:3])[0]).double()
    return z.mT @ z


@limit_threads(1)
def fit_gaussians(folds: Tensor) -> tuple[Gaussians, list[Gaussians]]:
    """Fit Gaussians to moments (folds, P, c + 1, c + 1): all, and all but each fold.

    A single fold is not left out.
    """
    projection = _first_directions(folds.sum((0, 1)))
    one = projection.new_ones(1, 1)
    basis = torch.block_diag(projection, one).double()  # k + 1, c + 1
    folds = basis @ folds @ basis.T
    every = folds.sum(0)
    rest = every - folds if len(folds) > 1 else folds

    def fit(moments: Tensor) -> Gaussians:
        mean, covariance = _shrink(moments)
        lower = torch.linalg.cholesky(covariance)
        eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        whitening = torch.linalg.solve_triangular(lower, eye, upper=False).mT
        return Gaussians(projection, mean.float(), whitening.float().contiguous())

    return fit(every), [fit(moments) for moments in rest]


def principal_components(features: Tensor) -> Tensor:
    """Return the directions (k, c) in which features (n, c, h, w) vary most."""
    z = F.pad(features.movedim(1, 3), (0, 1), value=1.0).flatten(0, 2).double()
    return _first_directions(z.T @ z)


def _first_directions(moments: Tensor) -> Tensor:
    """Return the principal components (k, c), float32, of moments (c + 1, c + 1)."""
    c = len(moments) - 1
    if c <= N_COMPONENTS:
        return torch.eye(c, device=moments.device)
    mean = moments[:-1, -1] / moments[-1, -1]
    covariance = moments[:-1, :-1] / moments[-1, -1] - mean[:, None] * mean
    directions = torch.linalg.eigh(covariance).eigenvectors  # ascending variance
    return directions.flip(1)[:, :N_COMPONENTS].T.float().contiguous()


def _shrink(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (P, k) and covariances (P, k, k), shrunk to those of all cells."""
    every, count = moments.sum(0), moments[:, -1:, -1]
    own = moments[:, :-1, -1] / count
    mean = own.lerp(every[:-1, -1] / every[-1, -1], _SHRINKAGE)
    k = mean.shape[1]
    eye = torch.eye(k, dtype=mean.dtype, device=mean.device)
    less_mean = torch.cat([eye.expand(len(mean), k, k), -mean[:, :, None]], 2)
    scatter = less_mean @ moments @ less_mean.mT  # P, k, k: about the shrunk means
    pooled = scatter.sum(0) / count.sum()
    square = every[:-1, :-1].diagonal().mean() / every[-1, -1]
    ridge = _RIDGE * pooled.diagonal().mean() + _ROUNDING * square + 1e-12
    covariance = (scatter / count[:, :, None]).lerp(pooled, _SHRINKAGE)
    return mean, covariance + ridge * eye


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


def _cells(size: Sequence[int]) -> tuple[int, list[int]]:
    """Return the side of the smallest cells that are not too many, and their grid."""
    cell = max(1, math.isqrt(math.prod(size) // _MOST_CELLS), max(size) // _MOST_CELLS)
    while math.prod(grid := [-(-side // cell) for side in size]) > _MOST_CELLS:
        cell += 1
    return cell, grid
