"""Warnings that point at the line of the caller's from which skad was called."""

import sys
import warnings

# Between the caller's line and skad: a search, a cache, a decorator.
_PASSED_OVER = {"skad", "sklearn", "joblib", "contextlib"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as `warnings.warn`, and point at the first line outside skad.

    The warning points at the call of scikit-learn where that called skad; in a thread
    or a worker process, where no such line is found, at where it began.

    Parameters
    ----------
    message : str
    category : subclass of Warning, default=UserWarning
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package_of(frame) in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package_of(frame) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]
