"""Decode many files once: which can be read, and whether they fit together."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images.decoding import Frame, decode_or_say_why, name_files
from skad.images.resizing import Size

_WORKERS = min(4, os.cpu_count() or 1)
_AT_ONCE = 4 * _WORKERS  # decoded images that wait in memory, at most


class Survey(NamedTuple):
    """What came of decoding some files."""

    paths: list[Path]  # of the files that could be read
    sizes: list[Size]  # of these, before they were resized
    shape: tuple[int, ...]  # of each image
    dtype: np.dtype[Any]  # of each image
    images: NDArray[Any]  # empty unless they are kept


def survey_files(
    paths: list[Path],
    size: Size | None,
    channels: int | None,
    *,
    keep: bool = False,
    strict: bool = False,
) -> Survey:
    """Decode every file once, and check that the images fit together.

    Files that cannot be read are left out with a warning, or with `strict` an error.
    """
    left_out: list[tuple[Path, str]] = []
    good: list[Path] = []
    sizes: list[Size] = []
    first = images = np.empty(0)
    for path, frame in _decode_all(paths, size, channels):
        if isinstance(frame, str):
            left_out.append((path, frame))
            continue
        image = frame.image
        if not good:
            first = image
            images = np.empty((len(paths) if keep else 0, *image.shape), image.dtype)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise ValueError(
                "images must have one size (height x width), colour and bit depth: "
                f"{good[0]} is {_describe(first)}, {path} is {_describe(image)}; pass "
                f"image_size={first.shape[:2]} to resize them, or gray=True to read "
                "all as gray, or convert the files to one bit depth"
            )
        if keep:
            images[len(good)] = image
        good.append(path)
        sizes.append(frame.size)
    if left_out:
        reasons = f"cannot read {name_files(left_out)}"
        if strict or not good:
            raise ValueError(reasons if good else f"no image can be read; {reasons}")
        warn(f"left out, {reasons}")
    return Survey(good, sizes, first.shape, first.dtype, images[: len(good)])


def _describe(image: NDArray[Any]) -> str:
    colour = "gray" if image.ndim == 2 else "colour"
    return f"{image.shape[0]} x {image.shape[1]} {colour} {image.dtype}"


def _decode_all(paths: list[Path], *options: Any) -> Iterator[tuple[Path, Frame | str]]:
    """Decode in parallel, in order; of a file that cannot be read, say why."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            frames = pool.map(lambda path: decode_or_say_why(path, *options), some)
            yield from zip(some, frames, strict=True)
