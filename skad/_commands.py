"""What the commands of the command line share."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from skad._finding import is_shape_of_files
from skad._promise import promise_in_words
from skad.images import ImageFolder


def check_not_read(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over one of the files that are read."""
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise ValueError(
            f"{output} is one of the files that are read or written otherwise, and "
            "would be replaced; name another file"
        )


def print_threshold(detector: Any) -> None:
    """Print what the threshold of a fitted detector is, and what it promises."""
    print(f"threshold      {detector.pixel_threshold_:.6g}")
    print(f"promise        {promise_in_words(detector)}")


def images_for(detector: Any, files: Sequence[Path]) -> ImageFolder:
    """Read files as a detector was fitted: gray or colour, of its images' size."""
    shape = detector.image_shape_in_
    if not is_shape_of_files(shape):
        raise ValueError(
            f"the model is of images of shape {shape}, but files are gray (height, "
            "width) or colour (height, width, 3); pass arrays in Python instead"
        )
    return ImageFolder(files, image_size=shape[:2], gray=shape[2:] != (3,))


def one_or_several(numbers: list[int] | None) -> Any:
    """Return a number alone as it is, and several as a tuple."""
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
