"""What a map's peak is made of, and which patches of good images are most like it."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import inference
from skad.network.model import MAP_STRIDE
from skad.scoring.anomaly_map import AnomalyMapper, Mapper
from skad.scoring.encoder_branches import FINE
from skad.scoring.fusion import piecewise_linear
from skad.scoring.network_branches import STRIDES, around

NETWORK_BRANCHES = (
    "segmentation decoder",
    "feature distance at stride 8",
    "feature distance at stride 16",
    "reconstruction error",
)
ENCODER_BRANCHES = ("nearest neighbours of the encoder", "Gaussians of the encoder")
WHOLE_IMAGE = "image as a whole"

Numbers = dict[str, float]
Pixel = tuple[int, int]  # row and column, in a mapper's input
Box = tuple[int, int, int, int]  # half-open, in pixels of the network's input


@inference()
def evidence_at_peak(
    mapper: Mapper, batch: np.ndarray
) -> tuple[Pixel, Numbers, Numbers]:
    """Return where the map of an image (1, H, W, C) peaks, and the evidence there.

    Beside the pixel, what each branch and the whole image add to the map, and the
    calibrated scores of the branches, if they are calibrated.

    The logarithm of 1 + map is a sum: of the weighted logarithms of 1 + calibrated
    score of all branches (`join`), and of what the whole image adds (`raise_by_whole`).
    A branch has the same share of the map as of this sum. Shares of the map are resized
    as the map is, and still add up to it.
    """
    if not isinstance(mapper, AnomalyMapper):
        amap = mapper(batch)[0]
        at = _peak(amap)
        return at, {NETWORK_BRANCHES[-1]: float(amap[at])}, {}

    def terms(*part: Any) -> Tensor:
        values = mapper.values(*part)
        scores = piecewise_linear(values, mapper.tails)
        added = scores.log1p_() * values.new_tensor(weights)[:, None, None, None]
        return torch.cat([added, values[[mapper.coarsest]]]).movedim(0, 1)

    weights = [weight / sum(mapper.weights) for weight in mapper.weights]
    x = mapper.preparation(batch, mapper.device)
    *branches, of_whole = mapper.by_tiles(terms, x, MAP_STRIDE).unbind(1)
    joined = torch.stack(branches).sum(0)  # 1, h/2, w/2
    raised = mapper.raised(joined, of_whole)
    to_input = mapper.preparation.to_input
    at = _peak(to_input(raised.expm1())[0].cpu().numpy())

    def there(values: Tensor) -> float:
        return float(to_input(values)[0][at])

    scale = raised.expm1() / raised.clamp(min=torch.finfo(raised.dtype).tiny)
    names = [*(NETWORK_BRANCHES if mapper.network is not None else ())]
    names += [*(ENCODER_BRANCHES if mapper.encoder is not None else ())]
    terms_of = dict(zip(names, branches, strict=True))
    added = terms_of | {WHOLE_IMAGE: raised - joined}
    return (
        at,
        {name: there(scale * term) for name, term in added.items()},
        {
            name: there((term / weight).expm1())
            for (name, term), weight in zip(terms_of.items(), weights, strict=True)
        },
    )


def _peak(amap: np.ndarray) -> Pixel:
    row, column = np.unravel_index(amap.argmax(), amap.shape)
    return int(row), int(column)


@inference()
def patch_at(mapper: AnomalyMapper, batch: np.ndarray, at: Pixel) -> tuple[Tensor, Box]:
    """Return the features (c,) of the patch around a pixel of an image, and its box."""
    x = mapper.preparation(batch, mapper.device)
    stride = _stride(mapper)
    features = mapper.by_tiles(partial(_features, mapper), x, stride)[0]
    row, column = (
        int((place + 0.5) * side / given) // stride
        for place, side, given in zip(
            at, mapper.preparation.working_size, batch.shape[1:3], strict=True
        )
    )
    return features[:, row, column], _box(mapper, row, column)


def nearest_patches(
    mapper: AnomalyMapper, patches: Sequence[Tensor], images: Any
) -> Iterator[list[tuple[float, Box]]]:
    """Yield, for each good image, distance and box of what is nearest to each patch.

    Distances are Euclidean, between means of 3 x 3 features: the fine ones of an
    encoder or, without one, those of the network at stride 8.
    """
    stride = _stride(mapper)

    def apart(x: Tensor, *_: Any) -> Tensor:
        features = _features(mapper, x)
        return torch.stack([(features - p[:, None, None]).norm(dim=1) for p in patches])

    @inference()
    def nearest(batch: np.ndarray) -> np.ndarray:
        x = mapper.preparation(batch, mapper.device)
        distances = mapper.by_tiles(apart, x, stride)  # patches, k, h', w'
        h, w = distances.shape[2:]
        outside = F.adaptive_max_pool2d(mapper.inside[None], (h, w)) == 0
        found = distances.masked_fill_(outside, torch.inf).flatten(2).min(2)
        places = found.indices // w, found.indices % w
        return torch.stack([found.values, *places]).cpu().numpy().T  # k, patches, 3

    for batch in mapper.over(images, nearest):
        for of_image in batch.tolist():
            yield [(d, _box(mapper, int(row), int(col))) for d, row, col in of_image]


def _stride(mapper: AnomalyMapper) -> int:
    """Return how many pixels of the network's input are from patch to patch."""
    if mapper.encoder is None:
        return STRIDES[0]
    return FINE // mapper.encoder.features.enlarged


def _features(mapper: AnomalyMapper, x: Tensor, *_: Any) -> Tensor:
    """Return what patches are compared by, (n, c, h / stride, w / stride)."""
    if mapper.encoder is None:
        features = mapper.folded.encode(x)[-len(STRIDES)]
    else:
        features, _ = mapper.encoder.features(x)
    height, width = (side // _stride(mapper) for side in x.shape[2:])
    return around(F.adaptive_avg_pool2d(features, (height, width)))


def _box(mapper: AnomalyMapper, row: int, column: int) -> Box:
    """Return the box of the 3 x 3 features around one."""
    stride, (height, width) = _stride(mapper), mapper.preparation.working_size
    top, left = (max(0, place - 1) * stride for place in (row, column))
    bottom, right = ((place + 2) * stride for place in (row, column))
    return top, left, min(bottom, height), min(right, width)
