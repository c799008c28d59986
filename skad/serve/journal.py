"""The log of verdicts, and which of them wait for the webhook: one SQLite file.

A verdict is on the disk before it is answered, so a crash loses none that was.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

FILE = "verdicts.sqlite"
_TRIM_EVERY = 1000  # rows
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS verdicts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, verdict TEXT NOT NULL, waits INTEGER
);
CREATE INDEX IF NOT EXISTS waiting ON verdicts (number) WHERE waits;
"""
_COUNT = "SELECT count(*) FROM verdicts WHERE waits"
_INSERT = "INSERT INTO verdicts (verdict, waits) VALUES (?, ?)"
_OLDEST = "SELECT number, verdict FROM verdicts WHERE waits ORDER BY number LIMIT 1"
_DELIVERED = "UPDATE verdicts SET waits = NULL WHERE number = ? AND waits"
_DROP = """UPDATE verdicts SET waits = NULL WHERE number IN
    (SELECT number FROM verdicts WHERE waits ORDER BY number LIMIT ?)"""
_TRIM = """DELETE FROM verdicts WHERE waits IS NULL
    AND number <= (SELECT max(number) FROM verdicts) - ?"""

T = TypeVar("T")


@dataclass
class _Entry:
    verdict: str  # JSON
    waits: bool  # for the webhook
    error: sqlite3.Error | None = None  # why it is not written


class Journal:
    """Verdicts in their order: `size` at most, of which `spool` wait at most.

    Where there are more, the oldest go.
    """

    def __init__(
        self, folder: Path, size: int, spool: int, on_drop: Callable[[int], None]
    ) -> None:
        self.size, self.spool = size, spool
        self._on_drop = on_drop  # told how many the webhook misses, if too many wait
        self.arrived = asyncio.Event()  # something may wait for the webhook
        self._entries: deque[_Entry] = deque()
        self._n_written = 0
        # One thread has the connection, and the event loop never waits for the disk.
        self._thread = ThreadPoolExecutor(1, "skad-journal")
        self._file = sqlite3.connect(folder / FILE, check_same_thread=False)
        try:
            self._file.executescript(_SCHEMA)
            (self.n_waiting,) = self._file.execute(_COUNT).fetchone()
        except sqlite3.Error as error:
            self._file.close()
            raise OSError(f"{folder / FILE} cannot be used: {error}") from error

    async def append(self, verdict: str, waits: bool) -> None:
        """Write a verdict; when this returns, it is on the disk."""
        entry = _Entry(verdict, waits)
        self._entries.append(entry)
        await self._do(self._write)  # or an earlier call has written it, too
        if entry.error is not None:
            raise entry.error
        if waits:
            self.arrived.set()

    async def oldest_waiting(self) -> tuple[int, str] | None:
        """Return the number and the verdict that the webhook gets next."""
        return await self._do(lambda: self._file.execute(_OLDEST).fetchone())

    async def delivered(self, number: int) -> None:
        """Note that the webhook has got a verdict."""

        def note() -> None:
            with self._file:
                self.n_waiting -= self._file.execute(_DELIVERED, (number,)).rowcount

        await self._do(note)

    def close(self) -> None:
        """Finish what is under way, and close the file."""
        self._thread.shutdown()
        self._file.close()

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _write(self) -> None:
        """Write all that is there in one transaction, which waits for the disk once."""
        entries = [self._entries.popleft() for _ in range(len(self._entries))]
        rows = [(entry.verdict, entry.waits or None) for entry in entries]
        waiting = self.n_waiting + sum(entry.waits for entry in entries)
        dropped = max(0, waiting - self.spool)
        n_written = self._n_written + len(rows)
        try:
            with self._file:
                self._file.executemany(_INSERT, rows)
                if dropped:
                    self._file.execute(_DROP, (dropped,))
                if n_written // _TRIM_EVERY > self._n_written // _TRIM_EVERY:
                    self._file.execute(_TRIM, (self.size,))
        except sqlite3.Error as error:
            for entry in entries:
                entry.error = error
            return
        self._n_written, self.n_waiting = n_written, waiting - dropped
        self._on_drop(dropped)
