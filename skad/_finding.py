"""Which files are meant: those of a folder, one, or some that are named."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from skad._decoding import PathLike

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def find_images(path: PathLike | Iterable[PathLike]) -> list[Path]:
    """List the image files of a folder.

    Parameters
    ----------
    path : path or iterable of paths
        A folder, searched for ``*.jpg``, ``*.jpeg``, ``*.png``, ``*.bmp``, ``*.tif``
        and ``*.tiff`` in any case, not recursively; or one file; or the files
        themselves, kept in their order, which may be a table of one column. A file
        that is named need not have one of these suffixes.

    Returns
    -------
    list of pathlib.Path
        The files of a folder in plain string order of their names, on every system
        the same: ``"10.png"`` comes before ``"2.png"``.

    Raises
    ------
    FileNotFoundError
        If the folder or a named file does not exist.
    ValueError
        If there is no image in the folder, no path in the iterable, or what is no path.
    """
    if not isinstance(path, str | os.PathLike):
        paths = _named(path)
    elif os.path.isdir(path):
        return _search(Path(path))
    else:
        paths = [Path(path)]
    for item in paths:
        if not os.path.lexists(item):
            raise FileNotFoundError(f"no such image file or folder: {item}")
    return paths


def is_shape_of_files(shape: tuple[int, ...]) -> bool:
    """Tell whether images of this shape come from files: gray, or in three colours."""
    return len(shape) > 1 and shape[2:] in ((), (1,), (3,))


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
    return [Path(item) for item in items]


def _search(folder: Path) -> list[Path]:
    # Not is_file: a broken link must be named later as unreadable, not vanish.
    found = [
        item
        for item in folder.iterdir()
        if item.suffix.lower() in SUFFIXES and not item.is_dir()
    ]
    if not found:
        raise ValueError(
            f"no image in the folder {folder}: looked for *{', *'.join(SUFFIXES)} "
            "(any case, not in subfolders)"
        )
    return sorted(found, key=lambda item: item.name)
