"""How unlike the others an image is, by what only the others taught."""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.bars import bar
from skad.common.torch_settings import training_settings
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import Images
from skad.inspection.regions import Box, find_regions
from skad.network.preparation import fit_preparation
from skad.scoring.fitting import fit_mapper, in_folds

_MOST_TEACHERS = 256  # images that are learned from, as in a fit
_N_FOLDS = 10
_OF_PEAK = 0.5  # the box holds what is connected with the peak and above this share


def score_by_others(
    images: Images,
    groups: NDArray[np.intp],
    encoder: FrozenEncoder,
    rng: np.random.RandomState,
    verbose: int = 0,
) -> tuple[NDArray[np.float64], list[Box]]:
    """Return the score (n,) of each image, higher = more normal, and a box of its peak.

    Nothing that an image is scored by comes from its own group. Up to 256 images teach,
    in whole groups, each scored by the other folds; all of them score the rest.
    """
    groups = np.unique(groups, return_inverse=True)[1]  # without gaps
    if groups.max() == 0:
        raise ValueError(
            f"an audit needs at least 2 different images, or groups; got {len(groups)} "
            "image(s), all copies or of one group. Add other images."
        )
    turn = rng.permutation(groups.max() + 1)[groups]
    order = np.argsort(turn, kind="stable")
    teach = turn <= turn[order[:_MOST_TEACHERS]].max()
    teachers, rest = order[teach[order]], order[~teach[order]]
    size = images.format.image_shape[:2]
    with training_settings():
        folds = in_folds(teachers, _N_FOLDS, groups[teachers])
        preparation = fit_preparation(images, teachers, size, None)
        mapper, held_out_maps = fit_mapper(None, preparation, images, folds, encoder)
        others: Any = mapper.over(images.subset(rest), mapper) if len(rest) else ()
        scores, boxes = np.empty(len(groups)), [(0, 0, *size)] * len(groups)
        places = np.concatenate([*folds, rest])
        maps = chain.from_iterable(chain(held_out_maps(), others))
        with bar(maps, total=len(places), unit="image", shown=bool(verbose)) as shown:
            for place, amap in zip(places, shown, strict=True):
                scores[place] = -amap.max()
                boxes[place] = _box_of_peak(amap)
    return scores, boxes


def _box_of_peak(amap: NDArray[np.float32]) -> Box:
    """Return where a map (H, W) is high, around its peak."""
    regions = find_regions(amap, amap > _OF_PEAK * amap.max())
    return regions[0].bbox if regions else (0, 0, *amap.shape)
