"""Write files so that a stop or a full disk never leaves half of one."""

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from skad.common.part_files import open_part


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file beside its place, then rename: there is all of it, or the old one.

    What an earlier call for this file left when it was killed is removed.

    Parameters
    ----------
    path : path
        The file; one that is there already is replaced, and keeps its permissions. Of
        a link, what it leads to.
    content : bytes or str
        What it shall hold; a str is written as UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written; nothing of it is left then.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _is_special(path):
        raise FileExistsError(errno.EEXIST, "It is a device or a pipe", str(path))
    if _is_protected(path):
        raise PermissionError(errno.EACCES, "It is write-protected", str(path))
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")  # any file name there is
    beside, file = open_part(path)
    with file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave an empty file
            with suppress(OSError):
                shutil.copymode(path, beside)
            if os.name == "nt":
                file.close()  # Windows renames nothing that is open
            beside.replace(path)
        except BaseException:
            if os.name == "nt":
                file.close()
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def make_room_for(path: str | os.PathLike[str]) -> Path:
    """Make the folder of a file to come, and see now that it can be written there.

    Parameters
    ----------
    path : path
        The file that shall be written after long work.

    Returns
    -------
    pathlib.Path
        The same path; "~" is the home folder.

    Raises
    ------
    OSError
        If the path is a folder, a device, a pipe or a write-protected file, or its
        folder cannot be made or written to.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder, and a file is to be written: name another place for "
            "it, or move the folder away"
        )
    if _is_special(path):
        raise FileExistsError(
            f"{path} is a device or a pipe, and a file is to be written: name another "
            "place for it"
        )
    if _is_protected(path):
        raise PermissionError(
            f"{path} is write-protected, and would be replaced: name another place, or "
            "allow that it is written"
        )
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


def _is_protected(path: Path) -> bool:
    """Whether a file is there that this user must not write to."""
    return path.is_file() and not os.access(path, os.W_OK)


def _is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket is there, which renaming would replace."""
    return path.exists() and not path.is_file() and not path.is_dir()
