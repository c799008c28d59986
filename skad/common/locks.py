"""Locks, so that two programs never write to one place at the same time."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from skad.common.warnings import warn

_START = 1  # of what a lock file says: on Windows, nobody else reads its first byte


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder or of a file to come, in an existing folder.

    Raises BlockingIOError where another program holds it, and warns on a file system
    without locks. The operating system frees the lock of a program that crashes.
    """
    place = Path(os.path.realpath(path))
    in_folder, beside = place / ".skad.lock", place.with_name(f".{place.name}.lock")
    file = in_folder if place.is_dir() else beside
    lock = filelock.FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"{path} is in use: {_holder(file)}. Wait until that ends, or name another "
            "place to write to"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        warn(
            f"{path} is on a file system without locks; make sure that no other "
            "program writes to it at the same time",
        )
        yield
        return
    try:
        _sign(file)
        yield
    finally:
        with suppress(OSError):  # Windows removes none that is open
            file.unlink()  # while it is held, so that it is nobody else's
        lock.release()


def _sign(file: Path) -> None:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    with file.open("r+b", buffering=0) as opened:
        opened.seek(_START)
        opened.write(json.dumps([os.getpid(), socket.gethostname(), since]).encode())
        opened.truncate()


def _holder(file: Path) -> str:
    """Tell who holds a lock."""
    try:
        pid, host, since = json.loads(file.read_bytes()[_START:])
        return f"process {pid} on {host} has been writing to it since {since}"
    except (OSError, ValueError):  # not signed yet
        return "another process is writing to it"
