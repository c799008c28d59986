"""What must agree in a fitted detector, so that a file cannot contradict itself."""

import itertools
import math
from typing import Any

import numpy as np
import torch

from skad.common.torch_settings import inference
from skad.detectors.parameters import image_size
from skad.images.inputs import Format, format_of
from skad.scoring.anomaly_map import Mapper
from skad.threshold.conformal import check_metric, conformal_rank

_ROUNDING = 1e-6  # of a float32's value
_MOST_PIXELS = 512 * 512  # of an image that is tried out whole
_DTYPES = {"integer": np.uint8, "unscaled integer": np.int64, "float": np.float64}


def check_threshold(description: dict[str, Any], scores: np.ndarray) -> None:
    """Raise a ValueError where a header and calibration scores contradict each other.

    Parameters
    ----------
    description : dict
        A header, of which every value is right by itself.
    scores : ndarray of shape (m,), float64
        Sorted; empty where there is no threshold.
    """
    offset, promised = description["offset"], description["promised_fpr"]
    if not len(scores):
        return
    if scores[-1] > 0:
        raise ValueError(f"calibration_scores must be <= 0; the last is {scores[-1]}")
    most = -scores.mean() * (1 + _ROUNDING) + np.finfo(np.float32).tiny
    if not 0 <= description["mean_map"] <= most:
        raise ValueError(
            f"mean_map={description['mean_map']} cannot be: by the calibration_scores, "
            f"it is from 0 to {most:.6g}"
        )
    labelled = description["labelled_threshold"]
    if labelled is not None:
        _check_labelled(labelled, offset, promised)
    elif promised is not None:
        _check_promise(promised, offset, scores)


def _check_labelled(labelled: dict[str, Any], offset: float, promised: Any) -> None:
    if labelled["offset"] != offset or promised is not None:
        raise ValueError(
            f"offset={offset} and promised_fpr={promised} contradict the "
            f"labelled_threshold, {labelled['offset']}, which promises nothing"
        )
    check_metric(labelled["metric"], 1, 1)
    for name in ("detection", "false_alarm"):
        (low, high), rate = labelled[f"{name}_interval"], labelled[f"{name}_rate"]
        if not 0 <= low <= rate <= high <= 1:
            raise ValueError(
                f"labelled_threshold has {name}_rate={rate} between {low} and {high}"
            )


def _check_promise(promised: float, offset: float, scores: np.ndarray) -> None:
    m = len(scores)
    rank = conformal_rank(m, promised)
    if not rank or offset != scores[min(rank, m) - 1]:
        raise ValueError(
            f"offset={offset} does not promise promised_fpr={promised} with {m} "
            "calibration_scores"
        )


def check_format(format: Format, image_shape: Any, names: Any) -> None:
    """Raise a ValueError where what images look like is contradicted.

    Parameters
    ----------
    format : Format
    image_shape : (H, W), (H, W, C) or None
        The detector's parameter.
    names : sequence of str or None
        Of the columns of a table.
    """
    dtype = np.dtype(_DTYPES[format.kind])
    seen = format_of(
        format.shape, dtype, image_shape if len(format.shape) == 1 else None
    )
    if seen.image_shape != format.image_shape:
        raise ValueError(
            f"items of shape {format.shape} are images of shape {seen.image_shape}, "
            f"and it was fitted on {format.image_shape}; image_shape={image_shape}"
        )
    if names is not None and (len(names),) != format.shape:
        raise ValueError(f"{len(names)} feature names are not for {format.shape}")


def check_history(history: list[dict[str, Any]]) -> None:
    """Raise a ValueError unless the epochs are numbered."""
    for number, epoch in zip(itertools.count(1), history, strict=False):
        if epoch["epoch"] != number:
            raise ValueError(f"history has epoch {epoch['epoch']} as number {number}")


def check_working_size(
    format: Format, size: Any, working_size: tuple[int, int], has_roi: bool
) -> None:
    """Raise a ValueError where `image_size` is not what the network was fitted at."""
    expected = image_size(size, format.image_shape[:2])
    if expected != working_size:
        raise ValueError(
            f"image_size={size} means a working size of {expected}, and it was fitted "
            f"at {working_size}. Set it back, or fit again"
        )
    if format.any_size and (size is None or has_roi):
        raise ValueError("images of any size need an image_size and no roi")


def check_finite_maps(
    mapper: Mapper,
    format: Format,
    working_size: tuple[int, int],
    least_size: tuple[int, int],
) -> None:
    """Raise a ValueError where the map of a blank image has no finite numbers.

    Where images are large, an input of the least size goes through the network alone.
    """
    sizes = (format.image_shape[:2], working_size)
    if max(map(math.prod, sizes)) <= _MOST_PIXELS:
        blank = np.zeros((1, *format.image_shape), _DTYPES[format.kind])
        seen = [torch.from_numpy(f(blank)) for f in (mapper, mapper.reconstruct)]
    else:
        with inference():
            found = mapper.network(torch.zeros(1, format.image_shape[2], *least_size))
        seen = list(found[:2]) if isinstance(found, tuple) else [found]
    if not all(torch.isfinite(numbers).all() for numbers in seen):
        raise ValueError("its network turns a blank image into no finite numbers")
