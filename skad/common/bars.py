"""Progress bars that never stop what they show the progress of."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_anywhere  # also in notebooks

from skad.common.streams import Forgiving

_shown: list[Any] = []  # bars
_shown_lock = threading.Lock()


@contextmanager
def bar(
    items: Iterable | None = None, *, shown: bool, anywhere: bool = False, **options
) -> Iterator[Any]:
    """Show a bar of tqdm's on the standard error stream; warnings go above it.

    Parameters
    ----------
    items : iterable, default=None
        What it counts by itself.
    shown : bool
        False: no bar, whatever else is said.
    anywhere : bool, default=False
        Show it also in notebooks, and where the stream leads to a file; else on
        terminals alone.
    **options
        tqdm's.
    """
    # None: where the stream is no terminal.
    hidden = True if not shown else False if anywhere else None
    kind = tqdm_anywhere if anywhere else tqdm
    # tqdm measures a terminal by itself only where it is given none.
    stream = Forgiving(sys.stderr)
    with kind(
        items, file=stream, disable=hidden, dynamic_ncols=True, **options
    ) as moving:
        if moving.disable:
            yield moving
            return
        _begin(moving)
        try:
            yield moving
        finally:
            _end(moving)


def _begin(moving: Any) -> None:
    """Let warnings go above a bar, too."""
    with _shown_lock:
        _shown.append(moving)
        if not isinstance(warnings.showwarning, _ShowAbove):
            warnings.showwarning = _ShowAbove(warnings.showwarning)


def _end(moving: Any) -> None:
    """Leave warnings as they were found, with the last bar."""
    with _shown_lock:
        _shown.remove(moving)
        if not _shown and isinstance(warnings.showwarning, _ShowAbove):
            warnings.showwarning = warnings.showwarning.before


class _ShowAbove:
    """Shows a warning as it was shown before, and bars below it."""

    def __init__(self, before: Callable[..., None]) -> None:
        self.before = before

    def __call__(self, *arguments: Any, **named: Any) -> None:
        with ExitStack() as cleared:
            for moving in list(_shown):
                cleared.enter_context(tqdm.external_write_mode(moving.fp))
            self.before(*arguments, **named)


def say(text: str, above: Any) -> None:
    """Write a line on the standard error stream, above a bar if it is shown."""
    tqdm.write(text, file=getattr(above, "fp", Forgiving(sys.stderr)))
