"""Decode many files once: which can be read, and whether they fit together."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images.decoding import Frame, decode_or_say_why, name_files, warn_truncated
from skad.images.resizing import Size

_WORKERS = min(4, os.cpu_count() or 1)
_AT_ONCE = 4 * _WORKERS  # decoded images that wait in memory, at most


class ImageInfo(NamedTuple):
    """What is remembered of an image that was decoded."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        colour = "gray" if len(self.shape) == 2 else "colour"
        return f"{self.shape[0]} x {self.shape[1]} {colour} {self.dtype}"

    def check(self, other: "ImageInfo") -> None:
        """Refuse an image that cannot be in one array with this one."""
        if (self.shape, self.dtype) != (other.shape, other.dtype):
            raise ValueError(
                "images must have one size (height x width), colour and bit depth: "
                f"{self.path} is {self}, {other.path} is {other}; pass "
                f"image_size={self.shape[:2]} to resize them, or gray=True to read all "
                "as gray, or convert the files to one bit depth"
            )


class Survey(NamedTuple):
    """What came of decoding some files."""

    paths: list[Path]  # of the files that could be read
    first: ImageInfo  # of these
    sizes: dict[Path, Size]  # of these, before they were resized
    images: NDArray[Any]  # empty unless they are kept
    left_out: list[tuple[Path, str]]  # the other files, with the reasons


def survey_files(
    paths: list[Path],
    size: Size | None,
    channels: int | None,
    truncated: str,
    *,
    keep: bool = False,
    strict: bool = False,
) -> Survey:
    """Decode every file once, and check that the images fit together.

    Files that cannot be read are left out with a warning, or with `strict` an error.
    """
    left_out: list[tuple[Path, str]] = []
    damaged: list[tuple[Path, str]] = []
    sizes: dict[Path, Size] = {}
    images = np.empty(0)
    good: list[Path] = []
    first = None
    for path, frame in _decode_all(paths, size, channels, truncated):
        if isinstance(frame, str):
            left_out.append((path, frame))
            continue
        image, sizes[path], damage = frame
        info = ImageInfo(path, image.shape, image.dtype)
        first = first or info
        first.check(info)
        if keep and not good:
            images = np.empty((len(paths), *image.shape), image.dtype)
        if keep:
            images[len(good)] = image
        good.append(path)
        if damage:
            damaged.append((path, damage))
    reasons = f"cannot read {name_files('', left_out)}"
    if first is None:
        raise ValueError(f"no image can be read; {reasons}")
    if left_out and strict:
        raise ValueError(reasons)
    if left_out:
        warn(f"left out, {reasons}")
    if damaged:
        warn_truncated(damaged)
    return Survey(good, first, sizes, images[: len(good)], left_out)


def _decode_all(paths: list[Path], *options: Any) -> Iterator[tuple[Path, Frame | str]]:
    """Decode in parallel, in order; of a file that cannot be read, say why."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            frames = pool.map(lambda path: decode_or_say_why(path, *options), some)
            yield from zip(some, frames, strict=True)
