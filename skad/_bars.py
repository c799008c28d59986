"""Progress bars that never stop what they show the progress of."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_anywhere  # also in notebooks

from skad._streams import Forgiving


def bar(
    items: Iterable | None = None, *, shown: bool, anywhere: bool = False, **options
) -> Any:
    """Return a bar of tqdm's on the standard error stream.

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
    return kind(items, file=stream, disable=hidden, dynamic_ncols=True, **options)


def say(text: str, above: Any) -> None:
    """Write a line on the standard error stream, above a bar if it is shown."""
    tqdm.write(text, file=getattr(above, "fp", Forgiving(sys.stderr)))
