"""Groups of images that show one part: what a user says of them, and one of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.checks import refuse_mask

_FORM = "groups must hold one label an image, such as the name of its part"


def check_groups(groups: Any, n: int) -> NDArray[np.intp] | None:
    """Return groups as numbers, (n,), by their first images; None stays None.

    Parameters
    ----------
    groups : None or array-like of shape (n,)
        Labels: any that are hashable, none missing.
    n : int
        Number of images.

    Raises
    ------
    ValueError
        If they are no labels, of another number of images, or one is missing.
    """
    if groups is None:
        return None
    refuse_mask(groups, "groups")
    if hasattr(groups, "__array__"):
        groups = np.asarray(groups).tolist()
    if not isinstance(groups, list | tuple | range):
        raise ValueError(
            f"{_FORM}; got {type(groups).__name__}. Pass a list or an array."
        )
    if len(groups) != n:
        raise ValueError(f"{_FORM}, {n} in all; got {len(groups)}.")
    numbers: dict[Any, int] = {}
    for i, label in enumerate(groups):
        try:
            missing = label is None or bool(label != label)
        except (TypeError, ValueError):  # pandas.NA, an array
            missing = not isinstance(label, np.ndarray)
        if missing:
            raise ValueError(
                f"groups must hold a label for every image; that of image {i} is "
                f"{label!r}. Give images of unknown parts labels of their own."
            )
        try:
            numbers.setdefault(label, len(numbers))
        except TypeError:
            raise ValueError(
                f"{_FORM}, that is hashable; that of image {i} is a "
                f"{type(label).__name__}. Pass str, int or tuples."
            ) from None
    return np.array([numbers[label] for label in groups], np.intp)


def one_of_each(
    groups: NDArray[np.intp], rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Return the places of one image of each group, drawn at random, in order.

    Nothing is drawn where no group has two images.
    """
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    several = np.flatnonzero(sizes > 1)
    if len(several):
        members = np.argsort(groups, kind="stable")
        starts = np.cumsum(sizes) - sizes
        chosen = starts[several] + rng.randint(sizes[several])
        first[several] = members[chosen]
    return np.sort(first)


def one_of_each_kind(
    labels: NDArray, groups: NDArray[np.intp] | None, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Return the places of a good and an anomalous image of each group, if it has both.

    Of all images without groups.
    """
    if groups is None:
        return np.arange(len(labels))
    return one_of_each(2 * groups + (labels == 1), rng)
