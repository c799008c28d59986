"""Server-sent events: what happens is told to every listener, and nobody waits."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

_KEPT = 256  # events that wait for a slow listener
_PULSE = 15.0  # seconds between comments that keep a silent connection open


def message(kind: str, json: str) -> str:
    """Return an event in the format of server-sent events [1]_.

    .. [1] https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    return f"event: {kind}\ndata: {json}\n\n"


class _Listener:
    def __init__(self) -> None:
        self.waiting: deque[str] = deque()
        self.lost = 0
        self.changed = asyncio.Event()


class Events:
    """Tells every listener what is published; each keeps the newest that wait."""

    def __init__(self, most_listeners: int = 32) -> None:
        self.most_listeners = most_listeners
        self._listeners: set[_Listener] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def publish(self, kind: str, json: str) -> None:
        """Tell all listeners; one that is slow loses its oldest event."""
        for listener in self._listeners:
            if len(listener.waiting) >= _KEPT:
                listener.waiting.popleft()
                listener.lost += 1
            listener.waiting.append(message(kind, json))
            listener.changed.set()

    def close(self) -> None:
        """End every stream, when its listener has got what waits."""
        self._closed = True
        for listener in self._listeners:
            listener.changed.set()

    async def listen(self) -> AsyncGenerator[str, None]:
        """Yield events until the service stops."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            yield ": skad serve\n\n"
            while listener.waiting or not self._closed:
                if listener.lost:
                    lost, listener.lost = listener.lost, 0
                    yield message("lost", f'{{"count": {lost}}}')
                if listener.waiting:
                    yield listener.waiting.popleft()
                    continue
                listener.changed.clear()
                try:
                    await asyncio.wait_for(listener.changed.wait(), _PULSE)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(listener)
