"""Pickles: which version wrote one, and whether this version can read it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from skad import __version__


class Origin(NamedTuple):
    """What wrote a pickle."""

    state_version: int  # raised where the state of an object is another
    skad_version: str


HERE = Origin(2, __version__)
EARLIER = Origin(1, "an earlier version")  # whose pickles do not say which


def unreadable(origin: Origin, reason: str) -> ValueError:
    """Return the error for a pickle that this version cannot read."""
    return ValueError(
        f"This pickle was written by skad {origin.skad_version}, and skad "
        f"{__version__} cannot read it: {reason}. Install that version to use it, or "
        "fit again with this one; files of skad.save last longer."
    )


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    shapes: Callable[[], dict[str, tuple[int, ...]]],
    origin: Origin | None,
) -> None:
    """Raise a ValueError that names both versions where arrays are not as expected.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    shapes : callable
        Returns what is expected; a "roi" may be there, too.
    origin : Origin or None
        What wrote the arrays; None where it does not say.
    """
    origin = origin or EARLIER
    if origin.state_version > HERE.state_version:
        raise unreadable(origin, "it is newer")
    try:
        expected = shapes()
    except (KeyError, TypeError) as error:
        raise unreadable(origin, f"it has no {error}") from error
    found = {name: array.shape for name, array in arrays.items() if name != "roi"}
    wrong = [k for k in expected | found if expected.get(k) != found.get(k)]
    if wrong:
        raise unreadable(
            origin,
            f"{wrong[0]} has shape {found.get(wrong[0])} where it expects "
            f"{expected.get(wrong[0])}",
        )
