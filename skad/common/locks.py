"""Locks, so that two programs never write to one place at the same time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skad.common.warnings import warn


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder or of a file to come, in an existing folder.

    Raises BlockingIOError where another program holds it, and warns on a file system
    without locks. The operating system frees the lock of a program that crashes.
    Without filelock, as where a detector was exported to, nothing is locked.
    """
    try:
        import filelock
    except ImportError:
        yield
        return
    place = Path(os.path.realpath(path))
    in_folder, beside = place / ".skad.lock", place.with_name(f".{place.name}.lock")
    file = in_folder if place.is_dir() else beside
    lock = filelock.FileLock(file, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"{path} is in use: another program is writing to it. Wait until that "
            "ends, or name another place to write to"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        warn(f"{path} is on a file system without locks: let no other program write")
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes none that is open
            file.unlink()  # while it is held, so that it is nobody else's
        lock.release()
