"""Warnings that point at the user's line that called skad."""

import inspect
import warnings
from types import FrameType

# Between the caller's line and skad: a search, a cache, a decorator.
_PASSED_OVER = {"skad", "sklearn", "joblib", "contextlib"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as `warnings.warn`, and point at the first line outside skad.

    In a thread or a worker process, where there is none, at where that began.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and _package_of(frame) in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]
