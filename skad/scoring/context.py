"""What the surroundings of a place let expect of the evidence there.

Some places are unusual in every good image: rims, rough patches, what is seldom seen.
How unusual is told, as a linear function, by the coarsest features around them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads

_SHARE = 0.75  # of what is to be expected; a defect changes its surroundings, too
_RIDGE = 1e-3  # of the mean square
_FARTHEST = 10.0  # standard deviations from the mean; farther, none is like it


class Expectation(NamedTuple):
    """The state: a linear function of the coarsest features, and how far it may go."""

    weight: Tensor  # (kinds, c)
    bias: Tensor  # (kinds,)
    most: Tensor  # (kinds,)

    def __call__(self, coarsest: Tensor) -> Tensor:
        """Return how much evidence to take off, (n, kinds, h, w).

        The coarsest features are (n, c, h, w); a place sees its neighbours', too.
        """
        # A convolution would round otherwise with another number of threads.
        off = F.linear(coarsest.movedim(1, 3), self.weight, self.bias).movedim(3, 1)
        return torch.minimum(_around(off), self.most[:, None, None])


def fit_expectation(images: Iterable[tuple[Tensor, Tensor]]) -> Expectation:
    """Learn by ridge regression what evidence good images give in which surroundings.

    Parameters
    ----------
    images : iterable of (coarsest, found)
        Coarsest features (n, c, h, w), and evidence (n, kinds, H, W) of the same
        images, H and W being multiples of h and w.

    Returns
    -------
    Expectation
    """
    sums = [_sums(coarsest, found) for coarsest, found in images]
    square, product = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
    ridge = _RIDGE * square.diagonal().mean()
    eye = torch.eye(len(square), dtype=square.dtype, device=square.device)
    weights = _SHARE * torch.linalg.solve(square + ridge * eye, product)  # c + 1, kinds
    mean = square[-1] @ weights / square[-1, -1]
    variance = (weights * (square @ weights)).sum(0) / square[-1, -1] - mean.square()
    most = mean + _FARTHEST * variance.clamp(min=0.0).sqrt()
    state = weights[:-1].T, weights[-1], most
    return Expectation(*(each.float().contiguous() for each in state))


@limit_threads(1)
def _sums(coarsest: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return x' x and x' y: x features and a one, y evidence, in rows for places."""
    h, w = coarsest.shape[2:]
    x = _rows(F.pad(_around(coarsest), (0, 0, 0, 0, 0, 1), value=1.0))  # m, c + 1
    y = _rows(F.adaptive_avg_pool2d(found, (h, w)))  # m, kinds
    return x.T @ x, x.T @ y


def _around(x: Tensor) -> Tensor:
    """Return the means of every place of (n, c, h, w) and its neighbours."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _rows(x: Tensor) -> Tensor:
    """Return the vectors (n h w, c) of (n, c, h, w)."""
    return x.movedim(1, 3).flatten(0, 2).double()
