"""Which files are meant: those of a folder, one, or some that are named."""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from skad.common.warnings import warn
from skad.images.decoding import PathLike
from skad.images.formats import suffixes
from skad.images.resizing import check_bool

_LISTED = 5  # names that one message spells out
_MOST_SEARCHED = 10_000  # files below a folder, for a hint
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
        one file; a pattern such as ``"parts/*.png"``, where ``**`` matches nested
        folders; or several files with any suffix, which may be a table with one
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
        If the folder or a named file does not exist, or nothing matches the pattern.
    ValueError
        If the folder has no image, or the iterable has no path or an invalid one.
    """
    check_bool("recursive", recursive)
    if not isinstance(path, str | os.PathLike):
        paths = _named(path)
    else:
        one = Path(os.path.expanduser(path))
        if os.path.isdir(one):
            return _search([one], recursive)
        if glob.has_magic(str(one)) and not os.path.lexists(one):
            found = glob.glob(str(one), recursive=True)
            if not found:
                raise FileNotFoundError(f"no image file or folder matches {one}")
            return _search(sorted(map(Path, found), key=_parts), recursive)
        paths = [one]
    for item in paths:
        if not os.path.lexists(item):
            raise FileNotFoundError(f"no such image file or folder: {item}")
    return paths


def list_files(sources: Iterable[PathLike], recursive: bool = False) -> list[Path]:
    """List the image files of several sources, each once, by absolute paths."""
    found = [find_images(source, recursive=recursive) for source in sources]
    return list(dict.fromkeys(_absolute(path) for paths in found for path in paths))


def _absolute(path: Path) -> Path:
    """Return the path from the root on; links stay, unless ".." may cross one."""
    if os.pardir in path.parts:
        return Path(os.path.realpath(path.parent)) / path.name
    return path.absolute()


def is_image_name(path: Path) -> bool:
    """Whether a file of this name is looked for in a folder."""
    return path.suffix.lower() in suffixes() and not _is_hidden(path.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _named(items: Any) -> list[Path]:
    """Check files that are named one by one."""
    if getattr(items, "ndim", 1) == 2:  # a table, of which one column will do
        items = np.asarray(items)
        items = items[:, 0] if items.shape[1] == 1 else items
    rule = "image paths must be a str or a pathlib.Path, or a sequence of these"
    if isinstance(items, bytes) or not np.iterable(items):
        raise ValueError(f"{rule}; got {items!r}")
    items = list(items)
    for i, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            raise ValueError(f"{rule}; item {i} is {item!r}")
    if not items:
        raise ValueError("no image paths: the sequence of paths is empty")
    return [Path(os.path.expanduser(item)) for item in items]


def _search(places: list[Path], recursive: bool) -> list[Path]:
    """List the images among files and in folders, and name what is none."""
    files: dict[Path, None] = {}
    for place in places:
        found = _files_in(place, recursive) if place.is_dir() else [place]
        files.update((file, None) for file in found if not _is_hidden(file.name))
    images = [file for file in files if is_image_name(file)]
    others = [file for file in files if not is_image_name(file)]
    if not images:
        raise ValueError(_say_none(places, recursive, others))
    if others:
        warn(_say_others(others))
    return images


def _files_in(folder: Path, recursive: bool) -> list[Path]:
    """List the files of a folder; broken links, too, to be named as unreadable."""
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if recursive and not f.startswith(".")]
        found += [Path(here, name) for name in names]
    return sorted(found, key=_parts)


def _say_others(others: list[Path]) -> str:
    names = ", ".join(file.name for file in others[:_LISTED])
    more = ", ..." * (len(others) > _LISTED)
    are = "file is no image" if len(others) == 1 else "files are no images"
    return f"{len(others)} {are} and not taken: {names}{more}, in {others[0].parent}"


def _say_none(places: list[Path], recursive: bool, others: list[Path]) -> str:
    """Say that there is no image, what there is instead, and where there are some."""
    folder = "the folder " if places[0].is_dir() else ""
    more = " and others" if len(places) > 1 else ""
    text = f"no image in {folder}{places[0]}{more}"
    below: Counter[Path] = Counter()
    for place in () if recursive else filter(os.path.isdir, places):
        for file in islice(place.rglob("*"), _MOST_SEARCHED):
            below[file.parent] += is_image_name(file)
    hints = [f"{count} in {folder}" for folder, count in sorted(below.items()) if count]
    if hints:
        text += f", but {', '.join(hints[:_LISTED])}: pass that, or recursive=True"
    if others:
        text += f"; {_say_others(others)}"
    return f"{text}; looked for *{', *'.join(sorted(suffixes()))}, in any case"
