"""Progress bars that never stop what they show the progress of."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_anywhere  # also in notebooks

from skad._streams import Forgiving


def bar(
    items: Iterable | None = None, *, shown: bool, on_terminals: bool = True, **options
) -> Any:
    """Return a bar of tqdm's on the standard error stream.

    Parameters
    ----------
    items : iterable, default=None
        What it counts by itself.
    shown : bool
        False: no bar, whatever else is said.
    on_terminals : bool, default=True
        No bar where the stream is none. False: wherever it is, in notebooks, too.
    **options
        tqdm's.
    """
    stream = Forgiving(sys.stderr)
    if on_terminals:
        disable = None if shown else True
        return tqdm(items, file=stream, disable=disable, **options)
    disable = not shown or sys.stderr is None
    return tqdm_anywhere(items, file=stream, disable=disable, **options)


def say(text: str, above: Any) -> None:
    """Write a line on the standard error stream, above a bar if it is shown."""
    tqdm.write(text, file=getattr(above, "fp", Forgiving(sys.stderr)))
