"""Which files are meant: those of a folder, one, or some that are named."""

import os
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from skad.common.warnings import warn
from skad.images.decoding import PathLike
from skad.images.pillow import suffixes
from skad.images.resizing import check_bool

_LISTED = 5  # names that one message spells out
# What systems leave in folders; other such names begin with a dot.
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_parts = attrgetter("parts")  # of a path: the order of these is the same everywhere


def find_images(
    path: PathLike | Iterable[PathLike], *, recursive: bool = False
) -> list[Path]:
    """List the image files of a folder.

    Parameters
    ----------
    path : path or iterable of paths
        A folder, searched for files with the suffix of an image format, in any case;
        one file; or several files with any suffix, which may be a table with one
        column. ``~`` is your home folder.
    recursive : bool, default=False
        Search subfolders, too. Links to folders are not followed.

    Returns
    -------
    list of pathlib.Path
        For a folder, in plain string order: ``"10.png"`` comes before ``"2.png"``; for
        an iterable, in its order. A warning names files in a folder that are not
        images, except hidden files and system files.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If the folder has no image, or the iterable has no path or an invalid one.
    """
    check_bool("recursive", recursive)
    if not isinstance(path, str | os.PathLike):
        return [_existing(item) for item in _named(path)]
    one = _existing(path)
    return _search(one, recursive) if one.is_dir() else [one]


def list_files(sources: Iterable[PathLike], recursive: bool = False) -> list[Path]:
    """List the image files of several sources, each once, by absolute paths."""
    found = [find_images(source, recursive=recursive) for source in sources]
    return list(dict.fromkeys(_absolute(path) for paths in found for path in paths))


def is_image_name(path: Path) -> bool:
    """Whether a file of this name is looked for in a folder."""
    return path.suffix.lower() in suffixes() and not _is_hidden(path)


def _absolute(path: Path) -> Path:
    """Return the path from the root on; links stay, unless ".." may cross one."""
    if os.pardir in path.parts:
        return Path(os.path.realpath(path.parent)) / path.name
    return path.absolute()


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def _existing(path: PathLike) -> Path:
    path = Path(os.path.expanduser(path))
    if not os.path.lexists(path):
        raise FileNotFoundError(f"no such image file or folder: {path}")
    return path


def _named(items: Any) -> list[PathLike]:
    """Check files that are named one by one."""
    if np.ndim(items) == 2 and np.shape(items)[1] == 1:  # a table
        items = np.asarray(items)[:, 0]
    if not np.iterable(items) or isinstance(items, bytes):
        items = [items]
    items = list(items)
    if not items:
        raise ValueError("no image paths: the sequence of paths is empty")
    for i, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            raise ValueError(
                "image paths must be a str or a pathlib.Path, or a sequence of these; "
                f"item {i} is {item!r}"
            )
    return items


def _search(folder: Path, recursive: bool) -> list[Path]:
    """List the images in a folder, and name what is none."""
    files = [path for path in _files_in(folder, recursive) if not _is_hidden(path)]
    images = [file for file in files if is_image_name(file)]
    if not images:
        hint = "" if recursive else "; recursive=True searches its subfolders, too"
        known = ", *".join(sorted(suffixes()))
        raise ValueError(
            f"no image in {folder}; looked for *{known}, in any case{hint}"
        )
    if len(images) < len(files):
        others = [file for file in files if not is_image_name(file)]
        names = ", ".join(file.name for file in others[:_LISTED])
        more = ", ..." * (len(others) > _LISTED)
        warn(f"{len(others)} file(s) are no images and not taken: {names}{more}")
    return images


def _files_in(folder: Path, recursive: bool) -> list[Path]:
    """List the files of a folder; broken links, too, to be named as unreadable."""

    def fail(error: OSError) -> None:  # os.walk passes over unreadable folders
        raise error

    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [f for f in folders if recursive and not f.startswith(".")]
        found += [Path(here, name) for name in names]
    return sorted(found, key=_parts)
