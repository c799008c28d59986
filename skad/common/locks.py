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

_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_START = 1  # of what a lock file says: Windows lets nobody else read its first byte


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep all others that ask for this lock from a file or a folder.

    The lock is a hidden file, in the folder or beside the file, which is removed at the
    end. The operating system releases it where the program crashes.

    Parameters
    ----------
    path : path
        A folder that exists, or a file in one that exists.

    Raises
    ------
    BlockingIOError
        If somebody holds it already: this says who, and since when.
    OSError
        If the lock cannot be written.

    Warns
    -----
    UserWarning
        If the file system has no locks: then there is none.
    """
    place = Path(os.path.realpath(path))
    file = place / ".skad.lock" if place.is_dir() else _beside(place)
    lock = filelock.FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"{path} is in use: {_holder(file)}. Wait until that ends, or name another "
            "place to write to"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
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


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")


def _sign(file: Path) -> None:
    """Write down who holds a lock."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    with file.open("r+b", buffering=0) as opened:
        opened.seek(_START)
        opened.write(json.dumps(holder).encode())
        opened.truncate()


def _holder(file: Path) -> str:
    """Say who holds a lock."""
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(_START)
            holder = json.loads(opened.read())
        return (
            f"process {holder['pid']} on {holder['host']} has been writing to it since "
            f"{holder['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):  # it has not signed yet
        return "another process is writing to it"
