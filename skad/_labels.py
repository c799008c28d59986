"""Labels of images: +1 good, -1 anomalous."""

from typing import Any

import numpy as np

from skad._masked import refuse_mask


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
    """Tell whether all of y are +1 or -1."""
    labels = np.asarray(y)
    return labels.dtype.kind in "iufO" and bool(np.isin(labels, (-1, 1)).all())


def not_labels(y: Any) -> str:
    """Say what labels have to be, where `are_labels` is False."""
    found = list(dict.fromkeys(np.asarray(y).ravel().tolist()))
    return (
        f"y must hold the labels +1 (good) and -1 (anomalous); got {str(found)[:60]}. "
        "Where 1 means anomalous, pass y = np.where(y == 1, -1, 1)."
    )


def places_of_good(y: Any, n: int) -> np.ndarray:
    """Places of the images that are not labelled -1; a y without labels is ignored."""
    everywhere = np.arange(n)
    if y is None:
        return everywhere
    labels = _one_an_image(y)
    if labels.ndim != 1 or not are_labels(labels):
        return everywhere
    return everywhere[check_labels(labels, n) == 1]


def _one_an_image(y: Any) -> np.ndarray:
    """Return y as an array; a table of one column is that column."""
    refuse_mask(y, "y")
    labels = np.asarray(y)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
