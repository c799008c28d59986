"""How well maps separate anomalous from good pixels: AU-PRO and pixel AUROC."""

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import auc

from skad.common.checks import as_float, refuse_mask
from skad.common.warnings import warn

ImageArrays: TypeAlias = NDArray | Iterable[ArrayLike]


def au_pro_score(
    masks: ImageArrays, maps: ImageArrays, *, integration_limit: float = 0.3
) -> float:
    """Area under the per-region overlap curve, up to a false-positive rate.

    Regions are the 8-connected components of a mask [1]_; the score is 1 if all of them
    are flagged before any good pixel.

    Parameters
    ----------
    masks : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Ground truth: bool, or 0 (good) and one positive number (anomalous). Images of
        a sequence may differ in size.
    maps : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Anomaly maps: finite numbers, higher = more anomalous.
    integration_limit : float in (0, 1], default=0.3
        Rate up to which the area is taken; the area is divided by it.

    Returns
    -------
    score : float in [0, 1]
        NaN with an `UndefinedMetricWarning` if no pixel is anomalous or none is good.

    Raises
    ------
    ValueError
        If shapes do not match, a map is not finite, or a mask is not 0 and 1.

    References
    ----------
    .. [1] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger and C. Steger, "The MVTec
       Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
       Anomaly Detection", International Journal of Computer Vision 129, 2021.

    Examples
    --------
    >>> masks = np.array([[[0, 0, 1, 1]]])
    >>> au_pro_score(masks, np.array([[[0.0, 0.3, 0.2, 0.9]]]), integration_limit=1)
    0.75
    """
    if not 0 < as_float(integration_limit) <= 1:
        raise ValueError(
            f"integration_limit must be above 0 and at most 1; got "
            f"{integration_limit!r}. The usual one is 0.3."
        )
    fpr, pro, _ = pro_curve(masks, maps)
    if np.isnan(fpr).any():
        return math.nan
    stop = int(np.searchsorted(fpr, integration_limit, side="right"))
    if stop < len(fpr):  # a straight line leads on
        at_limit = np.interp(integration_limit, fpr[stop - 1 :], pro[stop - 1 :])
        fpr = np.append(fpr[:stop], integration_limit)
        pro = np.append(pro[:stop], at_limit)
    return float(auc(fpr, pro) / integration_limit)


def pixel_auroc_score(masks: ImageArrays, maps: ImageArrays) -> float:
    """Area under the ROC curve over all pixels of all images.

    Arguments, errors and warnings are as in :func:`au_pro_score`.

    >>> masks = np.array([[[0, 0, 1, 1]]])
    >>> pixel_auroc_score(masks, np.array([[[0.0, 0.3, 0.2, 0.9]]]))
    0.75
    """
    good, anomalous = _split_pixels(_checked_pairs(masks, maps))
    if is_undefined(good, anomalous, "The pixel AUROC"):
        return math.nan
    anomalous.sort()  # neighbours in value are found close to one another in memory
    n_below = np.searchsorted(good, anomalous, side="left").mean()
    n_not_above = np.searchsorted(good, anomalous, side="right").mean()
    return float((n_below + n_not_above) / (2 * len(good)))


def pro_curve(
    masks: ImageArrays, maps: ImageArrays
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """Return false-positive rates of pixels, overlaps of regions, and thresholds.

    Where ``map >= threshold``, pixels are flagged. The overlap is the flagged share of
    an 8-connected anomalous region, averaged over all regions. Rates rise from 0
    to 1; points on straight lines are left out.
    """
    pairs = _checked_pairs(masks, maps)
    good, anomalous = _split_pixels(pairs)
    if is_undefined(good, anomalous, "The per-region overlap curve"):
        return np.full(1, np.nan), np.full(1, np.nan), np.full(1, np.inf)

    # A pixel adds 1 / (pixels of its region) to the overlap; a sum over thresholds.
    order = np.argsort(anomalous)
    levels = anomalous[order]  # rising
    shares = np.concatenate([_region_shares(mask) for mask, _ in pairs])[order]
    flagged = np.append(0.0, np.cumsum(shares[::-1]))  # of the 0, 1, … highest pixels
    # The overlap rises at the values of anomalous pixels; the level stretch before one
    # ends at the next good value above it.
    next_good = np.append(good, np.inf)[np.searchsorted(good, levels, side="right")]
    corners = np.concatenate([[np.inf], next_good, levels, good[:1]])
    thresholds = np.unique(corners.astype(good.dtype))[::-1]
    fpr = (len(good) - np.searchsorted(good, thresholds)) / len(good)
    pro = flagged[len(levels) - np.searchsorted(levels, thresholds)] / flagged[-1]
    return fpr, pro, thresholds


def is_undefined(
    good: NDArray, anomalous: NDArray, metric: str, of: str = "pixel"
) -> bool:
    """Return True, with a warning, if one of the two has no values."""
    if len(good) and len(anomalous):
        return False
    missing = "anomalous" if len(good) else "good"
    warn(
        f"{metric} is undefined without a single {missing} {of}: NaN is returned.",
        UndefinedMetricWarning,
    )
    return True


def _split_pixels(pairs: list[tuple[NDArray, NDArray]]) -> tuple[NDArray, NDArray]:
    """Return the values of all good pixels, sorted, and of all anomalous ones."""
    good = np.concatenate([values[~mask] for mask, values in pairs])
    good.sort()
    return good, np.concatenate([values[mask] for mask, values in pairs])


def _region_shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return 1 / (pixels of its region) for each anomalous pixel of a mask."""
    region = label(mask, connectivity=2)[mask]  # from 1
    return 1 / np.bincount(region)[region]


def _checked_pairs(
    masks: ImageArrays, maps: ImageArrays
) -> list[tuple[NDArray[np.bool_], NDArray[np.floating]]]:
    """Check masks and maps, and return pairs of both, (H, W) each."""
    refuse_mask(masks, "masks")
    refuse_mask(maps, "maps")
    mask_list, map_list = list(map(np.asarray, masks)), list(map(np.asarray, maps))
    if len(mask_list) != len(map_list) or not mask_list:
        raise ValueError(
            f"masks and maps must be equally many, and at least one; got "
            f"{len(mask_list)} masks and {len(map_list)} maps."
        )
    pairs = []
    for i, (mask, values) in enumerate(zip(mask_list, map_list, strict=True)):
        if mask.ndim != 2 or mask.shape != values.shape:
            raise ValueError(
                f"A mask and its map must have one shape (H, W); masks[{i}] has "
                f"{mask.shape} and maps[{i}] {values.shape}. Resize one of them; pass "
                "masks[np.newaxis] and maps[np.newaxis] for one image."
            )
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(
                f"maps must be finite; maps[{i}] is not. Leave that image out."
            )
        others = np.unique(mask[mask != 0])
        if len(others) > 1 or not (others > 0).all():
            raise ValueError(
                "masks must be bool, or 0 (good) and one number above it (anomalous); "
                f"masks[{i}] holds {others[:4].tolist()} beside 0. If a JPEG blurred "
                "two values, pass mask > mask.max() / 2."
            )
        pairs.append((mask > 0, values))
    return pairs
