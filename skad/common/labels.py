"""Labels of images: +1 good, -1 anomalous."""

from numbers import Real
from typing import Any

import numpy as np

from skad.common.checks import refuse_mask
from skad.common.warnings import warn

_REMEDY = "Pass y = np.where(bad, -1, 1), where bad is True for anomalous images."
_KNOWN = {-1, 1}
_AND_UNKNOWN = {-1, 0, 1}  # 0 for what nobody has labelled
_MOST_KINDS = 2
_READABLE = 50  # characters of what came


def check_labels(y: Any, n: int) -> np.ndarray:
    """Return labels as an array (n,) of +1 and -1."""
    labels = _one_an_image(y)
    if labels.shape != (n,):
        raise ValueError(
            f"y must hold one label an image, {n} in all; got shape {labels.shape}."
        )
    if not are_labels(labels):
        raise ValueError(not_labels(labels))
    return labels


def are_labels(y: Any) -> bool:
    """Tell whether all of y are +1 or -1.

    Raises
    ------
    ValueError
        If they are labels, and one of them is missing (NaN, None, pandas.NA), or names.
    """
    refuse_mask(y, "y")
    labels = np.asarray(y)
    if _hold_names(labels):
        raise ValueError(not_labels(labels))
    missing = _missing(labels)
    kinds = _kinds(labels[~missing])
    if missing.any() and _look_like_labels(kinds, labels.size):
        raise ValueError(
            "y must hold a label for every image, +1 (good) or -1 (anomalous); "
            f"{missing.sum()} of {labels.size} are missing, the first at place "
            f"{missing.ravel().argmax()}. Leave those images out, or label them."
        )
    return not missing.any() and kinds is not None and kinds <= _KNOWN


def not_labels(y: Any) -> str:
    """Say what labels have to be, where `are_labels` is False."""
    labels = np.asarray(y).ravel()
    found = ", ".join(sorted(map(str, _kinds(labels) or labels[:9].tolist())))
    found = found if len(found) <= _READABLE else f"{found[:_READABLE]} ..."
    return (
        f"y must hold the labels +1 (good) and -1 (anomalous); got [{found}]. {_REMEDY}"
    )


def places_of_good(y: Any, n: int) -> np.ndarray:
    """Places of the images that are not labelled -1.

    A y that cannot be labels, such as a continuous target, is ignored; so is one that
    may be other labels, with a warning.
    """
    everywhere = np.arange(n)
    if y is None:
        return everywhere
    labels = _one_an_image(y)
    if are_labels(labels):
        return everywhere[check_labels(labels, n) == 1]
    if _look_like_labels(_kinds(labels), n):
        warn(
            f"{not_labels(labels)} This y is ignored: fit learns from all images, the "
            "anomalous ones, too.",
        )
    return everywhere


def _one_an_image(y: Any) -> np.ndarray:
    """Return y as an array; a table of one column is that column."""
    refuse_mask(y, "y")
    labels = np.asarray(y)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _look_like_labels(kinds: set | None, n: int) -> bool:
    """Tell whether these values of n are few enough to be labels."""
    if kinds is None:
        return False
    if len(kinds) <= _MOST_KINDS or kinds <= _AND_UNKNOWN:
        return True
    are_whole = all(isinstance(v, Real) and v % 1 == 0 for v in kinds)
    return are_whole and 2 * len(kinds) <= n


def _kinds(labels: np.ndarray) -> set | None:
    """Return the different values; None where they are no numbers or the like.

    A bool is no number here, though Python has True == 1.
    """
    if labels.dtype.kind != "O":
        kinds = np.unique(labels)
        return set(kinds.astype(str) if kinds.dtype == bool else kinds.tolist())
    try:
        return {str(v) if isinstance(v, bool | np.bool_) else v for v in labels.flat}
    except TypeError:  # arrays, for instance
        return None


def _missing(labels: np.ndarray) -> np.ndarray:
    """Tell where there is no label: bool, of the same shape."""
    if labels.dtype.kind != "O":
        return labels != labels  # NaN
    return np.array([_is_missing(v) for v in labels.flat], bool).reshape(labels.shape)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA
        return True
    except ValueError:  # an array
        return False


def _hold_names(labels: np.ndarray) -> bool:
    if labels.dtype.kind != "O":
        return labels.dtype.kind in "US"
    return any(isinstance(value, str | bytes) for value in labels.flat)
