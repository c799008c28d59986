"""Inspect image files with a fitted detector, some at a time."""

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from skad.images.decoding import Frame, Reader
from skad.images.folder import as_fitted
from skad.images.inputs import read_ahead
from skad.inspection.score_files import Inspected
from skad.inspection.verdict import judge
from skad.scoring.anomaly_map import NotFiniteError

_AT_ONCE = 16  # images
_PIXELS_AT_ONCE = 2**24  # of the images at once, so that large ones fit into memory


def inspect_files(
    detector: Any, paths: Sequence[Path]
) -> Generator[Inspected, None, None]:
    """Read files as a detector was fitted, and inspect them.

    Raises a ValueError at once where no file can hold images as it was fitted on.
    """
    return _inspect_read(detector, as_fitted(detector), paths)


def _inspect_read(
    detector: Any, reader: Reader, paths: Sequence[Path]
) -> Generator[Inspected, None, None]:
    def read(path: Path) -> Any:
        try:
            return reader.read(path)
        except (OSError, ValueError) as error:
            return error

    n = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // math.prod(reader.size or ())))
    chunks = (paths[i : i + n] for i in range(0, len(paths), n))
    frames_of = read_ahead(lambda chunk: [(p, read(p)) for p in chunk], chunks)
    with closing(frames_of) as chunks_read:
        for chunk in chunks_read:
            # Integers are scaled by their type: no array may mix 8 and 16 bits.
            for dtype, group in groupby(chunk, _dtype_of):
                files, frames = zip(*group, strict=True)
                results = frames if dtype is None else _inspect(detector, frames)
                yield from zip(files, frames, results, strict=True)


def _dtype_of(read: tuple[Path, Any]) -> np.dtype | None:
    frame = read[1]
    return None if isinstance(frame, Exception) else frame.image.dtype


def _inspect(detector: Any, frames: Sequence[Frame]) -> Sequence[Any]:
    """Return the result of each frame, or why the detector refuses it."""
    images = np.stack([frame.image for frame in frames])
    try:
        if hasattr(detector, "offset_"):
            return detector.inspect(images)
        return [judge(one, -np.inf, None) for one in detector.anomaly_map(images)]
    except NotFiniteError:  # no fault of the files
        raise
    except ValueError as error:  # such as NaN among floating-point numbers
        if len(frames) == 1:
            return [error]
    return [_inspect(detector, [frame])[0] for frame in frames]
