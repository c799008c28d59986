"""Labels of images, +1 good and -1 anomalous."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import refuse_mask
from skad.common.warnings import warn

_LABELS = {"1", "-1", "1.0", "-1.0"}  # as text, since True == 1
MISSING = {"nan", "None", "<NA>"}  # NaN, None and pandas.NA, as text


def check_labels(y: Any, n: int, name: str = "y") -> NDArray[np.int_]:
    """Return labels as an array (n,) of +1 and -1."""
    labels = _one_per_image(y, name)
    if labels.shape != (n,):
        rule = f"{name} must hold one label an image, {n} in all"
        raise ValueError(f"{rule}; got shape {labels.shape}.")
    if not are_labels(labels, name):
        raise ValueError(not_labels(labels, name))
    return labels.astype(int)


def are_labels(y: Any, name: str = "y") -> bool:
    """Tell whether y is +1 and -1 alone; raise for names and for missing labels."""
    values = _distinct(y, name)
    known = {value for value in values if str(value) not in MISSING}
    misses_some = len(known) < len(values) and _may_be_labels(known, np.size(y))
    if misses_some or any(isinstance(value, str | bytes) for value in values):
        raise ValueError(not_labels(y, name))
    return set(map(str, values)) <= _LABELS


def places_of_good(y: Any, n: int) -> NDArray[np.intp]:
    """Return the places of the images that are not labelled -1.

    A y that cannot be labels, such as a continuous target, is ignored; one that may be
    other labels, as 0 and 1, is ignored with a warning.
    """
    if are_labels(y):
        return np.flatnonzero(check_labels(y, n) == 1)
    if _may_be_labels(_distinct(y, "y"), n):
        warn(
            f"{not_labels(y)} This y is ignored: fit learns from all images, including "
            "the anomalous ones."
        )
    return np.arange(n)


def not_labels(y: Any, name: str = "y") -> str:
    """Say what labels have to be, where `are_labels` is False."""
    found = ", ".join(sorted(set(map(str, _distinct(y, name))))[:9])
    return (
        f"{name} must hold the labels +1 (good) and -1 (anomalous), one an image; got "
        f"[{found}]. Pass {name} = np.where(bad, -1, 1), where bad is True for "
        "anomalous images, and leave out images without a label."
    )


def _one_per_image(y: Any, name: str) -> NDArray:
    """Return y as an array; a table of one column is that column."""
    refuse_mask(y, name)
    labels = np.asarray(y)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _distinct(y: Any, name: str) -> set:
    """Return the different values of y."""
    return set(_one_per_image(y, name).ravel().tolist())


def _may_be_labels(values: set, n: int) -> bool:
    """Tell whether these values of n images are few enough to be classes."""
    are_whole = all(isinstance(v, Real) and v % 1 == 0 for v in values)
    return len(values) <= 2 or (are_whole and len(values) <= max(3, n // 2))
