"""Nearest neighbours among features of good images, as in PatchCore [1]_.

References
----------
.. [1] Roth, K., Pemula, L., Zepeda, J., Schölkopf, B., Brox, T., Gehler, P. (2022).
   Towards total recall in industrial anomaly detection. CVPR, 14318-14328.
"""

import torch
from torch import Tensor, nn

from skad.common.torch_settings import limit_threads

N_NEIGHBOURS = 2000  # features that are kept, which bounds memory and time
_N_CANDIDATES = 20_000  # features that these are chosen from
_N_DIMENSIONS = 32  # of a random projection, in which they are chosen


class Neighbours(nn.Module):
    """Features of good images, which others are compared with."""

    bank: Tensor  # (m, c)

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)

    def distance(self, features: Tensor) -> Tensor:
        """Return distances (n, h, w) from features (n, c, h, w) to the nearest ones."""
        x = features.movedim(1, 3)  # n, h, w, c
        nearest = (self.bank.square().sum(1) - 2 * (x @ self.bank.T)).amin(3)
        return nearest.add_(x.square().sum(3)).clamp_(min=0.0).sqrt_()


class Candidates:
    """Features of each fold of the images, thinned out while images come."""

    def __init__(self, n_folds: int, n_images: int) -> None:
        self._of_folds: list[list[Tensor]] = [[] for _ in range(n_folds)]
        self._n_an_image = max(1, _N_CANDIDATES // n_images)
        self._generator = torch.Generator().manual_seed(0)

    def add(self, features: Tensor, fold: int) -> None:
        """Add some of the features (n, c, h, w) of images of a fold."""
        rows = features.movedim(1, 3).flatten(0, 2)  # n h w, c
        n = self._n_an_image * len(features)
        chosen = torch.randperm(len(rows), generator=self._generator)[:n]
        self._of_folds[fold].append(rows[chosen.to(rows.device)])

    @limit_threads(1)
    def choose(self) -> tuple[Neighbours, list[Neighbours]]:
        """Choose neighbours: of all images, and of all but those of each fold."""
        m = max(1, N_NEIGHBOURS // len(self._of_folds))
        chosen = [k_centre(torch.cat(rows), m) for rows in self._of_folds]
        if len(chosen) == 1:  # is not left out
            return Neighbours(chosen[0]), [Neighbours(chosen[0])]
        rest = [chosen[:i] + chosen[i + 1 :] for i in range(len(chosen))]
        held_out = [Neighbours(torch.cat(others)) for others in rest]
        return Neighbours(torch.cat(chosen)), held_out


def k_centre(rows: Tensor, m: int) -> Tensor:
    """Return m of n rows (n, c), or all, that leave no other row far from all of them.

    Greedily: the next one is always the row that is farthest from those chosen.
    """
    if len(rows) <= m:
        return rows
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(rows.shape[1], _N_DIMENSIONS, generator=generator)
    points = rows @ projection.to(rows.device)
    squares = points.square().sum(1)
    chosen = torch.zeros(m, dtype=torch.long, device=rows.device)
    distances = torch.full_like(squares, torch.inf)  # squared, to the nearest chosen
    for i in range(1, m):
        last = chosen[i - 1]
        to_last = squares - 2 * (points @ points[last]) + squares[last]
        distances = torch.minimum(distances, to_last)
        chosen[i] = distances.argmax()
    return rows[chosen]
