"""Progress bars on the standard error stream, with warnings above them."""

import io
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Forgiving:
    """A text stream that may be absent, closed, full or without a reader."""

    def __init__(self, stream: Any) -> None:
        closed = stream is None or getattr(stream, "closed", False)
        self._stream = io.StringIO() if closed else stream

    def write(self, text: str) -> None:
        """Write if possible."""
        with suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)

    def flush(self) -> None:
        """Flush if possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Hidden:
    """What stands for a bar of tqdm where that is not installed."""

    def __init__(self, items: Iterable | None) -> None:
        self._items = items or ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def update(self, n: float = 1) -> None:
        """Show nothing."""

    def write(self, text: str, file: Any) -> None:
        """Write a line to a stream."""
        print(text, file=file)


@contextmanager
def bar(
    items: Iterable | None = None, *, shown: bool, anywhere: bool = False, **options
) -> Iterator[Any]:
    """Show a progress bar of tqdm over some items, with tqdm's options.

    It appears on terminals; with `anywhere`, in notebooks and log files, too. Without
    tqdm, as where a detector was exported to, there is none.
    """
    try:
        from tqdm.auto import tqdm  # slow to import
    except ImportError:
        yield _Hidden(items)
        return
    hidden = not shown or (False if anywhere else None)  # None: if no terminal
    stream, before = Forgiving(sys.stderr), warnings.showwarning
    with tqdm(
        items, file=stream, disable=hidden, dynamic_ncols=True, **options
    ) as progress:

        def show_above(*args: Any, **named: Any) -> None:
            with tqdm.external_write_mode(file=progress.fp):
                before(*args, **named)

        if not progress.disable:
            warnings.showwarning = show_above
        try:
            yield progress
        finally:
            warnings.showwarning = before


def say(text: str, above: Any) -> None:
    """Write a line on the standard error stream, above a bar if that is shown."""
    above.write(text, file=getattr(above, "fp", Forgiving(sys.stderr)))
