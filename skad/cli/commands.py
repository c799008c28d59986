"""What the commands of the command line share."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skad.threshold.conformal import promise_in_words


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


def one_or_several(numbers: list[int] | None) -> Any:
    """Return a number alone as it is, and several as a tuple."""
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
