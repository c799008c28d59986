"""Files that are being written, beside those that they are going to replace.

One that a crash leaves is removed when its target is written again. The lock of the
operating system tells it from one that somebody else is writing.
"""

import os
import secrets
import sys
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

_LONGEST = 100  # bytes of a target's name in that of its part; file systems allow 255
_TRIES = 10

if sys.platform == "win32":
    _DEAD_AFTER = 3600.0  # seconds without a change

    def _lock(descriptor: int) -> bool:
        return True

    def _is_dead(part: Path) -> bool:
        return time.time() - part.stat().st_mtime > _DEAD_AFTER

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock an open file; False where somebody else has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_dead(part: Path) -> bool:
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return _lock(descriptor)
        finally:
            os.close(descriptor)


def open_part(path: Path) -> tuple[Path, BinaryIO]:
    """Make the file whose content is to replace that of a path, and hold it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    part : Path
        In the same folder. While it is open, nobody takes it for a dead one.
    file : binary file

    Raises
    ------
    OSError
        If it cannot be made.
    """
    part = path.with_name(_name_of_part(path.name))
    with suppress(OSError):  # there is none, or it is somebody else's
        if _is_dead(part):
            part.unlink()
    for _ in range(_TRIES):
        with suppress(FileExistsError):
            file = part.open("xb")
            if _is_held(part, file):
                return part, file
            file.close()
        part = path.with_name(f".{secrets.token_hex(8)}.part")  # somebody writes, too
    raise FileExistsError(f"too many programs write to {path} at the same time")


def _name_of_part(name: str) -> str:
    """Return a name that belongs to one target."""
    encoded = os.fsencode(name)
    start = encoded[:_LONGEST].decode(errors="ignore")
    return f".{start}-{blake2b(encoded, digest_size=8).hexdigest()}.part"


def _is_held(part: Path, file: BinaryIO) -> bool:
    """Lock a new file; False where somebody took it for a dead one meanwhile."""
    try:
        if not _lock(file.fileno()):
            return False
    except OSError:  # this file system has no locks
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False
