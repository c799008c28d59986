"""Decode many files once: which can be read, and whether they fit together."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images.decoding import (
    Frame,
    Seen,
    check_fits,
    decode_or_say_why,
    list_files,
    warn_truncated,
)
from skad.images.resizing import Size

_WORKERS = min(4, os.cpu_count() or 1)
_AT_ONCE = 4 * _WORKERS  # decoded images that wait in memory, at most

Reasons = list[tuple[Path, str]]


class Survey(NamedTuple):
    """What came of decoding some files."""

    paths: list[Path]  # of the files that could be read
    first: Seen  # of these
    left_out: Reasons  # the others
    truncated: Reasons  # of those that could be read
    images: NDArray[Any]  # empty unless they are kept
    sizes: dict[Path, Size]  # of the files that could be read


def survey_files(
    paths: list[Path],
    size: Size | None,
    gray: bool,
    truncated: str,
    keep: bool = False,
) -> Survey:
    """Decode every file once, and see that the images fit together.

    Parameters
    ----------
    paths : list of pathlib.Path
    size : (height, width) or None
    gray : bool
    truncated : {"error", "warn"}
        All three as in `read_image`, checked.
    keep : bool, default=False
        Keep the images, in one array.

    Returns
    -------
    survey : Survey

    Raises
    ------
    ValueError
        If no file can be read, or the images differ in size, colour or bit depth.
    """
    good: list[Path] = []
    left_out: Reasons = []
    lacking: Reasons = []
    sizes: dict[Path, Size] = {}
    images = np.empty(0)
    first = None
    decode = partial(decode_or_say_why, size=size, gray=gray, truncated=truncated)
    for path, frame in zip(paths, _decode_all(paths, decode), strict=True):
        if isinstance(frame, str):
            left_out.append((path, frame))
            continue
        image, sizes[path], lack = frame
        seen = Seen(path, image.shape, image.dtype)
        first = first or seen
        check_fits(first, seen)
        if keep and not good:
            images = np.empty((len(paths), *image.shape), image.dtype)
        if keep:
            images[len(good)] = image
        good.append(path)
        if lack:
            lacking.append((path, lack))
    if first is None:
        raise ValueError(f"no image can be read; {list_unreadable(left_out)}")
    return Survey(good, first, left_out, lacking, images[: len(good)], sizes)


def _decode_all(paths: list[Path], decode: Any) -> Iterator[Frame | str]:
    """Decode in parallel, in order; of a file that cannot be read, say why."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(decode, paths[start : start + _AT_ONCE])


def stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of last change in ns; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def list_unreadable(left_out: Reasons) -> str:
    """Name files that cannot be read, with the reasons."""
    return "cannot read " + list_files("", left_out)


def warn_of(survey: Survey) -> None:
    """Name what was left out, and what was read although it ends early."""
    if survey.left_out:
        warn(f"left out, {list_unreadable(survey.left_out)}")
    if survey.truncated:
        warn_truncated(survey.truncated)
