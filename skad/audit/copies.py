"""Images that are there twice, to the pixel or nearly, also among the test images."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.detectors.split import describe, digest, group_near_copies

Groups = NDArray[np.intp]  # (n,), numbers from 0

_NAMED = 3  # copies that are named with an image


class Traits(NamedTuple):
    """What tells copies among images of one size."""

    names: list[str]
    digests: list[int]
    descriptions: list[Any]  # None of very small images

    def add(self, name: str, image: NDArray[Any]) -> None:
        """Add an image (H, W, C)."""
        self.names.append(name)
        self.digests.append(digest(image))
        self.descriptions.append(describe(image))


def group_copies(traits: Traits) -> tuple[Groups, Groups]:
    """Return groups (n,) of equal images, and of equal or nearly equal ones."""
    _, first, equal = np.unique(traits.digests, return_index=True, return_inverse=True)
    near = np.arange(len(first))
    if traits.descriptions[0] is not None:
        with warnings.catch_warnings(record=True) as said:  # of what `fit` would do
            warnings.simplefilter("always")
            near = group_near_copies(np.stack([traits.descriptions[i] for i in first]))
        if said and len(np.unique(near)) == len(near):
            warn(
                "Many images look nearly the same, so near copies are not told: a bad "
                "image that is there several times may pass as good. Pass groups, the "
                "part of each image."
            )
    return equal, near[equal]


def remarks_on_copies(
    names: list[str], equal: Groups, near: Groups, n: int
) -> list[list[str]]:
    """Name the copies of each of the first n images, those from the test first.

    All images from the n-th on are test images.
    """
    members: dict[int, list[int]] = {}
    for j in [*range(n, len(names)), *range(n)]:
        members.setdefault(int(near[j]), []).append(j)

    def remark(i: int, j: int) -> str:
        how = "same pixels as" if equal[i] == equal[j] else "nearly the same as"
        return f"{how} {'the test image ' if j >= n else ''}{names[j]}"

    remarks = []
    for i in range(n):
        others = [j for j in members[int(near[i])] if j != i]
        said = [remark(i, j) for j in others[:_NAMED]]
        more = len(others) - _NAMED
        remarks.append([*said, f"{more} more copies"] if more > 0 else said)
    return remarks
