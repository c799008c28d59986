"""A stream that what is written to it cannot stop."""

from typing import Any


class Forgiving:
    """A text stream that may be absent, closed, full or without a reader.

    Parameters
    ----------
    stream : text stream or None
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        return self._try("write", text) or 0

    def flush(self) -> None:
        """Flush what can be flushed."""
        self._try("flush")

    def isatty(self) -> bool:
        """Tell whether somebody is looking."""
        return bool(self._try("isatty"))

    def _try(self, method: str, *arguments: Any) -> Any:
        if self._stream is None:
            return None
        try:
            return getattr(self._stream, method)(*arguments)
        except (OSError, ValueError):  # ValueError: it is closed
            return None

    def __getattr__(self, name: str) -> Any:
        """Give what else the stream has."""
        return getattr(self._stream, name)
