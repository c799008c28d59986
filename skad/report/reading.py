"""Images of any source, inspected one after another, so that few are in memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.detectors.files import inspect_files
from skad.images.finding import find_images
from skad.images.folder import ImageFolder
from skad.images.resizing import Size, resize
from skad.inspection.verdict import InspectionResult
from skad.overlays import read_picture, to_rgb_uint8

_AT_ONCE = 16  # images


class Item(NamedTuple):
    """An image that was inspected."""

    path: str  # "" if it is no file
    size: Size  # of the file, or of the array
    result: InspectionResult | Exception  # regions in pixels of this size
    draw: Callable[[Size], NDArray[np.uint8]]  # RGB at another size


def as_source(images: Any) -> Any:
    """Return files as a list of absolute paths, array-likes as an array."""
    first = images[0] if isinstance(images, Sequence) and len(images) else None
    if isinstance(images, str | os.PathLike) or isinstance(first, str | os.PathLike):
        return [path.absolute() for path in find_images(images)]
    return np.asarray(images) if hasattr(images, "__array__") else images


def paths_of(source: Any) -> list[Path]:
    """Return the files that a source of `as_source` reads, by absolute paths."""
    if isinstance(source, ImageFolder):
        return [path.absolute() for path in source.paths]
    is_list = isinstance(source, list) and source and isinstance(source[0], Path)
    return source if is_list else []


def inspect_each(detector: Any, source: Any) -> Iterator[Item]:
    """Inspect the images of a source, in order."""
    if isinstance(source, list) and paths_of(source):
        return _of_files(detector, source)
    return _of_images(detector, source)


def _of_files(detector: Any, paths: list[Path]) -> Iterator[Item]:
    for path, frame, result in inspect_files(detector, paths):
        draw = partial(read_picture, path)
        if isinstance(result, Exception):
            yield Item(str(path), (0, 0), result, draw)
            continue
        shape = result.anomaly_map.shape
        regions = [region.scaled(shape, frame.size) for region in result.regions]
        yield Item(str(path), frame.size, replace(result, regions=regions), draw)


def _of_images(detector: Any, X: Any) -> Iterator[Item]:
    paths = paths_of(X)
    for start in range(0, len(X) or 1, _AT_ONCE):  # of none, the detector complains
        places = range(start, min(start + _AT_ONCE, len(X)))
        is_sliced = isinstance(X, np.ndarray | ImageFolder)
        some = X[start : start + _AT_ONCE] if is_sliced else [X[i] for i in places]
        for i, result in zip(places, detector.inspect(some), strict=True):
            if paths:
                draw = partial(read_picture, paths[i])
                yield Item(str(paths[i]), X.frame_sizes[i], result, draw)
                continue
            image = np.asarray(some[i - start])
            if image.ndim == 1:  # a row, flattened
                image = image.reshape(detector.fitted.format.image_shape)  # H, W, C
            draw = partial(_resized, image)
            yield Item("", result.anomaly_map.shape, result, draw)


def _resized(image: NDArray[Any], size: Size) -> NDArray[np.uint8]:
    return resize(to_rgb_uint8(image), size)
