"""Whether a lazy sequence can be told from others, by its pickle."""

import pickle
from typing import Any


class _Nowhere:
    """A file to write to where only writing itself matters."""

    def write(self, data: Any) -> None:
        """Forget it."""


def check_pickles(source: Any) -> None:
    """Raise a ValueError where a lazy sequence cannot be told from others.

    joblib tells objects apart by their pickles, and passes over some that cannot be
    pickled, with all that they stand for.
    """
    try:
        pickle.Pickler(_Nowhere()).dump(source)
    except Exception as error:  # of any kind, from a class of somebody else's
        raise ValueError(
            "With memory or a checkpoint, a lazy sequence must be one that can be "
            "pickled, for what is kept is told apart by that; X is a "
            f"{type(source).__name__}, which cannot: {error}. Pass an array or an "
            "ImageFolder, or neither memory nor checkpoint."
        ) from error
