"""Progress bars on the standard error stream, with warnings above them."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from skad.common.streams import Forgiving


@contextmanager
def bar(
    items: Iterable | None = None, *, shown: bool, anywhere: bool = False, **options
) -> Iterator[Any]:
    """Show a progress bar of tqdm over some items, with tqdm's options.

    It appears on terminals; with `anywhere`, in notebooks and log files, too.
    """
    hidden = not shown or (False if anywhere else None)  # None: if no terminal
    stream = Forgiving(sys.stderr)
    with tqdm(
        items, file=stream, disable=hidden, dynamic_ncols=True, **options
    ) as progress:
        if progress.disable:
            yield progress
            return
        before = warnings.showwarning

        def show_above(*args: Any, **named: Any) -> None:
            with tqdm.external_write_mode(file=progress.fp):
                before(*args, **named)

        warnings.showwarning = show_above
        try:
            yield progress
        finally:
            warnings.showwarning = before


def say(text: str, above: Any) -> None:
    """Write a line on the standard error stream, above a bar if that is shown."""
    tqdm.write(text, file=getattr(above, "fp", Forgiving(sys.stderr)))
