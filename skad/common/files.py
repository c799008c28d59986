"""Write files so that a stop or a full disk never leaves half of one."""

import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_DEAD_AFTER = 3600  # seconds: a part file that is older is left from a killed program


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file beside its place and rename it: all of it is there, or the old one.

    A link stays, and what it leads to is replaced. So do permissions. A str is written
    as UTF-8.
    """
    path = Path(os.path.realpath(path))
    _check_replaceable(path)
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")  # any file name there is
    for dead in path.parent.glob(".skad-*.part"):
        with suppress(OSError):  # another program has removed it
            if time.time() - dead.stat().st_mtime > _DEAD_AFTER:
                dead.unlink()
    part = path.with_name(f".skad-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave an empty file
        with suppress(OSError):  # it is new, or there are no permissions
            shutil.copymode(path, part)
        part.replace(path)
    except OSError as error:  # which names the part, or nothing
        reason = f"{error.strerror}; it is not written"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def make_room_for(path: str | os.PathLike[str]) -> Path:
    """Make the folder of a file, and return its path; "~" is the home folder.

    Raises an OSError if the file could not be written.
    """
    path = Path(os.path.expanduser(path))
    _check_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))):
            pass
    except OSError as error:
        raise type(error)(
            f"{path} cannot be written: {error.strerror or error}; name a file in a "
            "folder that you may write to"
        ) from error
    return path


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file, or move it away")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} is a device or a pipe: name another file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(
            f"{path} is write-protected: name another file, or allow writing to it"
        )
