"""The images of an audit, brought to one size; files that do not fit are named."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.warnings import warn
from skad.images.decoding import Reader, reader_of
from skad.images.finding import find_images
from skad.images.folder import ImageFolder, read_all, read_images
from skad.images.inputs import Images, as_images, batches_of
from skad.images.resizing import Size, resize

_LONGEST_SIDE = 512  # pixels, of what is scored
_BYTES_IN_MEMORY = 2**30  # of images that are decoded only once more


@dataclass(frozen=True, eq=False)
class Collection:
    """n images of one format, and the files that do not fit in."""

    names: list[str]
    images: Images
    sizes: list[Size]  # of the files, before resizing
    refused: dict[str, str]  # names of files that `fit` would refuse, and why


def are_paths(images: Any) -> bool:
    """Tell whether images are given as a path or as a list of paths."""
    first = images[0] if isinstance(images, list | tuple) and images else images
    return isinstance(first, str | os.PathLike)


def collect_arrays(X: Any) -> Collection:
    """Take an array (n, H, W) or (n, H, W, C), or a lazy sequence such as a folder."""
    images = as_images(X, None)
    height, width, _ = images.format.image_shape
    names = [str(name) for name in getattr(X, "paths", range(len(images)))]
    sizes = getattr(X, "frame_sizes", [(height, width)] * len(images))
    return Collection(names, images, sizes, {})


def collect_files(paths: list[Path], image_size: Any, gray: bool) -> Collection:
    """Read files at one size: by default the median one, at most 512 pixels long.

    Those that cannot be read, or differ from most in colour or bit depth, are refused.
    """
    reader = reader_of(image_size, gray)
    kinds, sizes, refused = {}, {}, {}
    for path, frame in read_all(paths, reader._replace(size=None)):
        if isinstance(frame, Exception):
            refused[str(path)] = str(frame).partition(f"{path}: ")[2] or str(frame)
        else:
            kinds[path] = frame.image.shape[2:], frame.image.dtype
            sizes[path] = frame.size
    if not kinds:
        raise ValueError(f"no image can be read: {next(iter(refused.values()))}")
    usual = Counter(kinds.values()).most_common(1)[0][0]
    for path, kind in kinds.items():
        if kind != usual:
            refused[str(path)] = f"{_in_words(*kind)}, but most are {_in_words(*usual)}"
    good = [path for path, kind in kinds.items() if kind == usual]
    frames = [sizes[path] for path in good]
    size = reader.size or _working_size(frames)
    n_bytes = len(good) * math.prod((*size, *usual[0])) * usual[1].itemsize
    read: Any = read_images if n_bytes <= _BYTES_IN_MEMORY else ImageFolder
    images = as_images(read(good, image_size=size, gray=gray), None)
    return Collection([str(path) for path in good], images, frames, refused)


def each_image(images: Images) -> Iterator[NDArray[Any]]:
    """Yield one image (H, W, C) after the other."""
    with closing(batches_of(images, np.arange(len(images))[:, np.newaxis])) as batches:
        for (image,) in batches:
            yield image


def test_images(test: Any, shape: Sequence[int]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield names and images of a test, resized to the shape (H, W, C) of others."""
    height, width, channels = shape
    if are_paths(test):
        reader = Reader((height, width), channels)
        for path, frame in read_all(find_images(test, recursive=True), reader):
            if isinstance(frame, Exception):
                warn(f"A test image is not searched: {frame}")
            else:
                yield str(path), frame.image.reshape(shape)
        return
    names = getattr(test, "paths", range(len(test)))
    for name, image in zip(names, test, strict=True):
        yield str(name), resize(np.asarray(image), (height, width)).reshape(shape)


def _in_words(channels: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{'colour' if channels else 'gray'} of {8 * dtype.itemsize} bits"


def _working_size(sizes: list[Size]) -> Size:
    height, width = np.median(sizes, axis=0)
    shrunk = min(1, _LONGEST_SIDE / max(height, width))
    return max(1, round(shrunk * height)), max(1, round(shrunk * width))
