"""What the trained network gives: four branches of evidence at each pixel.

From all but that of the segmentation decoder, the value predicted from context is
subtracted.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE
from skad.scoring.gaussians import Gaussians

STRIDES = FEATURE_STRIDES[2:]  # 8 and 16: distances of finer features add nothing
N_BRANCHES = 2 + len(STRIDES)
_RIDGE = 1e-3  # of the mean square


def network_branches(
    network: nn.Module,
    x: Tensor,
    gaussians: Iterable[Gaussians],
    context: nn.Linear | None,
    corner: Sequence[int],
    whole: Sequence[int],
) -> Tensor:
    """Return the values of all branches, (branches, n, h/2, w/2), at x (n, C, h, w).

    The logits of the segmentation decoder, and the logarithms of feature distances at
    every stride and of the reconstruction error, less what the context predicts. x may
    be a tile, cut at this upper left corner, of images whose size as a `whole` is
    (height, width).
    """
    reconstruction, logits, features = network(x)
    found = [logits[:, None]]  # n, 1, h', w' each
    coarse = features[-len(STRIDES) :]
    for stride, level, f in zip(STRIDES, gaussians, coarse, strict=True):
        place, size = ([side // stride for side in pair] for pair in (corner, whole))
        found.append(level.distance(f, place, size)[:, None].log1p_())
    found.append(_cell_means((x - reconstruction).abs_()).log1p_())
    size = logits.shape[1:]
    values = torch.cat([F.interpolate(f, size, mode="bilinear") for f in found], 1)
    if context is not None:
        predicted = context(features[-1].movedim(1, 3)).movedim(3, 1)
        predicted = around(predicted)  # n, branches - 1, h/16, w/16
        values[:, 1:] -= F.interpolate(predicted, size, mode="bilinear")
    return values.movedim(1, 0)


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


def around(x: Tensor) -> Tensor:
    """Return the means of every position of (n, c, h, w) and its neighbours."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _cell_means(x: Tensor) -> Tensor:
    """Return means (n, 1, h/2, w/2) over cells and channels of images (n, C, h, w).

    By a convolution, which is quicker than pooling where the channels come last.
    """
    shape = (1, x.shape[1], MAP_STRIDE, MAP_STRIDE)
    mean = x.new_full(shape, 1 / math.prod(shape))
    return F.conv2d(x, mean, stride=MAP_STRIDE)
