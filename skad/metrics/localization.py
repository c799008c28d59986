"""How well maps tell anomalous pixels from good ones: AU-PRO and the pixel AUROC."""

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import auc

from skad.common.checks import as_float, as_mask, refuse_mask
from skad.common.warnings import warn

ImageArrays: TypeAlias = NDArray | Iterable[ArrayLike]


def pro_curve(
    masks: ImageArrays, maps: ImageArrays
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """Per-region overlap against the false-positive rate of pixels.

    At a threshold `t` a pixel is flagged where `map >= t`. The per-region overlap
    (PRO) is the flagged share of an anomalous region, averaged over all regions of
    all images, so that a small region counts as much as a large one [1]_ [2]_. A
    region is an 8-connected component of a mask. The false-positive rate (FPR) is the
    flagged share of all good pixels of all images.

    Parameters
    ----------
    masks : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        The truth: bool, or 0 and one number above it, which is anomalous. In a sequence
        the images may differ in size.
    maps : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Anomaly maps: finite numbers, higher = worse.

    Returns
    -------
    fpr : ndarray of shape (k,), float64
        False-positive rates, never falling, from 0 to 1.
    pro : ndarray of shape (k,), float64
        Mean per-region overlaps, never falling, from 0 to 1.
    thresholds : ndarray of shape (k,)
        Falling thresholds, the first infinite. Thresholds in the middle of a
        stretch of constant overlap are left out; straight lines join the points.

    Raises
    ------
    ValueError
        Where shapes do not match, a map is not finite, or a mask is not 0 and 1.

    Warns
    -----
    UndefinedMetricWarning
        Where no pixel is anomalous (`pro` is NaN) or none is good (`fpr` is NaN).

    References
    ----------
    .. [1] P. Bergmann, M. Fauser, D. Sattlegger and C. Steger, "Uninformed Students:
       Student-Teacher Anomaly Detection with Discriminative Latent Embeddings",
       CVPR 2020, section 4.
    .. [2] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger and C. Steger, "The MVTec
       Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
       Anomaly Detection", International Journal of Computer Vision 129, 2021.

    Examples
    --------
    >>> masks = np.array([[[0, 0, 1, 1]]])
    >>> maps = np.array([[[0.0, 0.3, 0.2, 0.9]]])
    >>> fpr, pro, thresholds = pro_curve(masks, maps)
    >>> fpr
    array([0. , 0. , 0.5, 0.5, 1. ])
    >>> pro
    array([0. , 0.5, 0.5, 1. , 1. ])
    >>> thresholds
    array([inf, 0.9, 0.3, 0.2, 0. ])
    """
    mask_list, map_list = _check_masks_and_maps(masks, maps)
    good, anomalous = _split_pixels(mask_list, map_list)
    if is_undefined(good, anomalous, "The per-region overlap curve"):
        lowest = min(pixels.min() for pixels in (good, anomalous) if len(pixels))
        blank, ends = np.full(2, np.nan), np.array([0.0, 1.0])
        fpr, pro = (ends, blank) if len(good) else (blank, ends)
        return fpr, pro, np.array([np.inf, lowest])
    return _pro_curve(good, anomalous, _region_shares(mask_list))


def au_pro_score(
    masks: ImageArrays, maps: ImageArrays, *, integration_limit: float = 0.3
) -> float:
    """Area under the per-region overlap curve, up to a false-positive rate.

    The curve of :func:`pro_curve` is integrated by the trapezoidal rule from 0 to
    `integration_limit`, with linear interpolation at the limit, and divided by it.

    Parameters
    ----------
    masks : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        The truth: bool, or 0 and one number above it, which is anomalous.
    maps : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Anomaly maps: finite numbers, higher = worse.
    integration_limit : float, default=0.3
        Largest false-positive rate of pixels that counts, in (0, 1]; the default is
        that of [1]_.

    Returns
    -------
    score : float
        From 0 to 1; 1 = every region wholly flagged before any good pixel. NaN
        where no pixel is anomalous or none is good.

    Raises
    ------
    ValueError
        Where shapes do not match, a map is not finite, a mask is not 0 and 1, or
        `integration_limit` is not in (0, 1].

    Warns
    -----
    UndefinedMetricWarning
        Where the score is NaN.

    References
    ----------
    .. [1] P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger and C. Steger, "The MVTec
       Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
       Anomaly Detection", International Journal of Computer Vision 129, 2021.

    Examples
    --------
    >>> masks = np.array([[[0, 0, 1, 1]]])
    >>> maps = np.array([[[0.0, 0.3, 0.2, 0.9]]])
    >>> au_pro_score(masks, maps)
    0.5
    >>> au_pro_score(masks, maps, integration_limit=1.0)
    0.75
    """
    if not (0 < as_float(integration_limit) <= 1):
        raise ValueError(
            "integration_limit must be above 0 and at most 1, a false-positive rate; "
            f"got {integration_limit!r}. The usual one is 0.3."
        )
    mask_list, map_list = _check_masks_and_maps(masks, maps)
    good, anomalous = _split_pixels(mask_list, map_list)
    if is_undefined(good, anomalous, "AU-PRO"):
        return math.nan
    fpr, pro, _ = _pro_curve(good, anomalous, _region_shares(mask_list))
    stop = int(np.searchsorted(fpr, integration_limit, side="right"))
    if stop < len(fpr):
        weight = (integration_limit - fpr[stop - 1]) / (fpr[stop] - fpr[stop - 1])
        at_limit = (1 - weight) * pro[stop - 1] + weight * pro[stop]
        fpr = np.append(fpr[:stop], integration_limit)
        pro = np.append(pro[:stop], at_limit)
    return float(auc(fpr, pro) / integration_limit)


def pixel_auroc_score(masks: ImageArrays, maps: ImageArrays) -> float:
    """Area under the ROC curve over all pixels of all images.

    The share of pairs of an anomalous and a good pixel in which the anomalous one
    has the higher map value, ties counting one half.

    Parameters
    ----------
    masks : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        The truth: bool, or 0 and one number above it, which is anomalous.
    maps : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Anomaly maps: finite numbers, higher = worse.

    Returns
    -------
    score : float
        From 0 to 1. NaN where no pixel is anomalous or none is good.

    Raises
    ------
    ValueError
        Where shapes do not match, a map is not finite, or a mask is not 0 and 1.

    Warns
    -----
    UndefinedMetricWarning
        Where the score is NaN.

    Examples
    --------
    >>> masks = np.array([[[0, 0, 1, 1]]])
    >>> pixel_auroc_score(masks, np.array([[[0.0, 0.3, 0.2, 0.9]]]))
    0.75
    """
    good, anomalous = _split_pixels(*_check_masks_and_maps(masks, maps))
    if is_undefined(good, anomalous, "The pixel AUROC"):
        return math.nan
    anomalous.sort()  # neighbours in value are found close to one another in memory
    below = np.searchsorted(good, anomalous, side="left").mean()
    not_above = np.searchsorted(good, anomalous, side="right").mean()
    return float((below + not_above) / (2 * len(good)))


def _split_pixels(
    masks: list[NDArray[np.bool_]], maps: list[NDArray[np.floating]]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Values of all good pixels, sorted, and of all anomalous ones, in image order."""
    pairs = list(zip(masks, maps, strict=True))
    good = np.concatenate([values[~mask] for mask, values in pairs])
    good.sort()
    return good, np.concatenate([values[mask] for mask, values in pairs])


def _region_shares(masks: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """For each anomalous pixel, in image order, 1 / (pixels of its region)."""
    shares = []
    for mask in masks:
        if mask.any():
            region = label(mask, connectivity=2)[mask]  # (anomalous pixels,), from 1
            shares.append(1 / np.bincount(region)[region])
    return np.concatenate(shares)


def _pro_curve(
    good: NDArray[np.floating],
    anomalous: NDArray[np.floating],
    shares: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating]]:
    """Corners of the curve: PRO rises only at the values of anomalous pixels.

    Each such value, from high to low, gives two points: at the next good value above
    it, where the level stretch before it ends, and at the value itself.
    """
    levels, inverse = np.unique(anomalous, return_inverse=True)
    levels = levels[::-1]  # (k,), falling
    flagged = np.cumsum(np.bincount(inverse, weights=shares)[::-1])  # (k,), regions
    overlap = flagged / flagged[-1]

    first_above = np.searchsorted(good, levels, side="right")
    first_not_below = np.searchsorted(good, levels, side="left")
    next_good = np.append(good, np.inf)[first_above]

    def points(start, before, after, end):
        pairs = np.stack([before, after], axis=1).ravel()  # (2k,), alternating
        return np.concatenate([[start], pairs, [end]])  # (2k + 2,)

    alarms = points(0, len(good) - first_above, len(good) - first_not_below, len(good))
    pro = points(0.0, np.append(0.0, overlap[:-1]), overlap, 1.0)
    thresholds = points(np.inf, next_good, levels, good[0]).astype(good.dtype)
    moved = np.append(True, (np.diff(alarms) > 0) | (np.diff(pro) > 0))
    return alarms[moved] / len(good), pro[moved], thresholds[moved]


def is_undefined(
    good: NDArray, anomalous: NDArray, metric: str, of: str = "pixel"
) -> bool:
    """Warn and return True where one of the two kinds is missing."""
    for kind, values in (("good", good), ("anomalous", anomalous)):
        if not len(values):
            warn_undefined(metric, f"{kind} {of}")
            return True
    return False


def warn_undefined(metric: str, missing: str) -> None:
    """Warn that a metric is NaN, and for want of what."""
    warn(
        f"{metric} is undefined without a single {missing}: NaN is returned.",
        UndefinedMetricWarning,
    )


def _check_masks_and_maps(
    masks: ImageArrays, maps: ImageArrays
) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.floating]]]:
    """Check both, and return lists of bool and of float arrays of shape (H, W)."""
    mask_list = _list_of_images(masks, "masks")
    map_list = _list_of_images(maps, "maps")
    if len(mask_list) != len(map_list):
        raise ValueError(
            f"masks and maps must be equally many; got {len(mask_list)} masks and "
            f"{len(map_list)} maps. A good image has a mask of zeros."
        )
    for i, (mask, values) in enumerate(zip(mask_list, map_list, strict=True)):
        if mask.shape != values.shape:
            raise ValueError(
                f"A mask and its map must have one shape; masks[{i}] has {mask.shape} "
                f"and maps[{i}] {values.shape}. Resize one of them."
            )
        mask_list[i] = _check_mask(mask, i)
        map_list[i] = _check_map(values, i)
    return mask_list, map_list


def _list_of_images(images: ImageArrays, name: str) -> list[NDArray]:
    refuse_mask(images, name)
    if not np.iterable(images):
        raise ValueError(
            f"{name} must be an array of shape (n, H, W) or a sequence of arrays of "
            f"shape (H, W); got {images!r}."
        )
    if isinstance(images, np.ndarray) and images.ndim != 3:
        raise ValueError(
            f"{name} must have shape (n, H, W); got {images.shape}. "
            f"For one image pass {name}[np.newaxis]."
        )
    arrays = [np.asarray(image) for image in images]
    if not arrays:
        raise ValueError(f"{name} must hold at least one image; got none.")
    for i, array in enumerate(arrays):
        if array.ndim != 2:
            raise ValueError(
                f"Each of {name} must have shape (H, W); {name}[{i}] has "
                f"{array.shape}. Pass one channel without a channel axis."
            )
        if not array.size:
            raise ValueError(
                f"Each of {name} must have at least one pixel; {name}[{i}] has shape "
                f"{array.shape}. Leave it out."
            )
    return arrays


def _check_mask(mask: NDArray, i: int) -> NDArray[np.bool_]:
    if mask.dtype == bool:
        return mask
    values = np.unique(mask)
    others = values[values != 0]
    if len(others) > 1 or not (np.isfinite(others) & (others > 0)).all():
        shown = ", ".join(f"{value:g}" for value in values[:4])
        raise ValueError(
            "masks must be bool, or hold 0 (good) and one number above it (anomalous), "
            f"1 or 255; masks[{i}] holds {shown}{', …' * (len(values) > 4)}. Where a "
            "JPEG blurred two values, pass mask > mask.max() / 2."
        )
    return as_mask(mask)


def _check_map(values: NDArray, i: int) -> NDArray[np.floating]:
    if values.dtype.kind in "biu":
        return values.astype(np.float64)
    if values.dtype.kind != "f":
        raise ValueError(
            f"maps must be real numbers; maps[{i}] has dtype {values.dtype}. "
            "Pass what anomaly_map returns."
        )
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(
            f"maps must be finite; maps[{i}] holds {values[wrong][0]}. "
            "Replace it, or leave that image out."
        )
    return values
